"""Random damage, in the size of a test; `python tests/bundle_mutants.py` does ten times as much."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bundle_mutants import run_byte_mutants, run_signed_mutants

N_MUTANTS = int(os.environ.get("RECO_TEST_MUTANTS", "1000"))
N_SIGNED_MUTANTS = int(os.environ.get("RECO_TEST_SIGNED_MUTANTS", "150"))


def test_every_mutant_of_the_bytes_is_refused_and_none_crashes(tmp_path: Path) -> None:
    found = run_byte_mutants(tmp_path, N_MUTANTS, seed=1)
    assert found["accepted"] == []
    assert found["refused"] == N_MUTANTS


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("index", N_SIGNED_MUTANTS),
        ("content", N_SIGNED_MUTANTS),
        ("tower", N_SIGNED_MUTANTS // 10),  # a process for each
    ],
)
def test_every_signed_mutant_is_refused_or_answers(target: str, count: int) -> None:
    found = run_signed_mutants(target, count, seed=1)
    assert found["crashed"] == 0
    assert found["refused"] + found["answered"] == count
    assert found["refused"] > 0
    assert found["answered"] > 0
