"""What the tests on the shipped model share."""

from __future__ import annotations

import pytest
from mini_setting import MiniSetting, mini_setting


@pytest.fixture(scope="session")
def mini_site() -> str:
    """Where the autoencoder of :func:`mini` is trained."""
    return "layers.2.mixer"


@pytest.fixture(scope="session")
def mini(mini_site: str) -> MiniSetting:
    """helix_mini with an autoencoder of 384 features, simulated constructs and their edits."""
    return mini_setting([mini_site])
