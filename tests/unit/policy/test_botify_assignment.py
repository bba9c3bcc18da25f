"""botify's division of users: the published logs' treatments, and fair shares."""

from __future__ import annotations

import mmh3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from service.policy.botify_assignment import assign

PUBLISHED = [
    ("AA", 2, 3255, "C"),
    ("AA", 2, 7229, "T1"),
    ("STICKY_ARTIST", 2, 5020, "T1"),
    ("STICKY_ARTIST", 2, 6128, "C"),
    ("STICKY_ARTIST", 9, 3873, "T8"),
    ("STICKY_ARTIST", 9, 1112, "T1"),
    ("STICKY_ARTIST_WITH_FALLBACK", 2, 3255, "T1"),
    ("STICKY_ARTIST_WITH_FALLBACK", 2, 7229, "C"),
    ("HSTU", 2, 3736, "T1"),
    ("HSTU", 2, 6661, "C"),
]


@pytest.mark.parametrize(("experiment", "n", "user", "treatment"), PUBLISHED)
def test_it_is_the_published_logs_assignment(experiment: str, n: int, user: int, treatment: str) -> None:
    assert assign(experiment, user, n) == treatment
    assert assign(experiment, str(user), n) == treatment


def test_names_whose_hash_is_negative_work() -> None:
    assert mmh3.hash("STICKY_ARTIST") < 0
    assert assign("STICKY_ARTIST", 5020, 2) == "T1"


@settings(deadline=None)
@given(st.text(), st.integers(0, 10**18), st.integers(1, 10))
def test_it_is_sticky_and_names_one_of_n(experiment: str, user: int, n: int) -> None:
    treatment = assign(experiment, user, n)
    assert treatment in ["C", *(f"T{number}" for number in range(1, n))]
    assert assign(experiment, user, n) == treatment


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize("experiment", ["AA", "STICKY_ARTIST", "I2I"])
def test_its_shares_are_equal(experiment: str, n: int) -> None:
    _, counts = np.unique([assign(experiment, user, n) for user in range(10_000)], return_counts=True)
    assert len(counts) == n
    assert chisquare(counts).pvalue > 1e-4
