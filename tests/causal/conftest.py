"""What the tests on the shipped model share."""

from __future__ import annotations

import pytest
from mini_setting import MiniSetting, mini_setting


@pytest.fixture(scope="session")
def mini() -> MiniSetting:
    """helix_mini with 384 features of a mixer and of a residual stream, simulated constructs and their edits."""
    return mini_setting(["layers.2.mixer", "layers.4"])
