"""One session for all tests of the explorer: opening helix_mini takes a second."""

from __future__ import annotations

import pytest
from explorer_toys import shipped_session

from helix_sae.explorer import Session


@pytest.fixture(scope="session")
def session() -> Session:
    return shipped_session()
