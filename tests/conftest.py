"""Fixtures that every room shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("RECO_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; without it these tests skip and say how to run them."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real data: set RECO_TEST_DATA to a folder that holds movielens-100k/, movielens-1m/, ...")
    return REAL_DATA
