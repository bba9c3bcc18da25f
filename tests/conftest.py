"""Fixtures that every room shares."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import tiny_dataset, write_tiny_bundle

# Tests of exported towers import it as they please; it must not call home from here either.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("RECO_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; without it these tests skip and say how to run them."""
    if not REAL_DATA.is_dir():
        pytest.skip(
            "no real data: set RECO_TEST_DATA to a folder that holds movielens-100k/, movielens-1m/, ..."
        )
    return REAL_DATA


@pytest.fixture(scope="session")
def component() -> Callable[[str, str], str]:
    """Find a program that a test drives: `component(name, how_to_get_it)`. Absent: CI fails, others skip."""

    def find(name: str, how_to_get_it: str) -> str:
        beside_python = Path(sys.executable).parent
        found = shutil.which(
            name, path=os.pathsep.join([str(beside_python), os.environ.get("PATH", os.defpath)])
        )
        if found is not None:
            return found
        message = f"no {name}: {how_to_get_it}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)

    return find


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifacts folder that holds one published bundle of the tiny data. Not to be written to."""
    root = tmp_path_factory.mktemp("artifacts")
    write_tiny_bundle(root)
    return root


@pytest.fixture(scope="session")
def str_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with string ids."""
    root = tmp_path_factory.mktemp("str-artifacts")
    write_tiny_bundle(root, dataset=tiny_dataset(ids="str"))
    return root
