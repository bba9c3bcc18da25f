from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BundleRefused
from service.recommender.fold_in import AlsFoldIn
from service.recommender.recency import NEGLIGIBLE, fading, half_life_in, telling


@given(n=st.integers(1, 300), half_life=st.floats(0.05, 1e6))
def test_the_newest_item_counts_whole_and_older_ones_halve(n: int, half_life: float) -> None:
    weights = fading(n, half_life)
    assert len(weights) == n
    assert weights[-1] == 1.0
    assert (np.diff(weights) >= 0).all()
    whole = round(half_life)
    if whole == half_life and whole < n:
        assert weights[-1 - whole] == pytest.approx(0.5)


@given(half_life=st.floats(0.01, 1000))
def test_what_is_left_out_weighs_nothing(half_life: float) -> None:
    n = telling(half_life)
    assert 2.0 ** (-n / half_life) <= NEGLIGIBLE
    assert n == 1 or 2.0 ** (-(n - 1) / half_life) > NEGLIGIBLE * 0.999


def test_no_half_life_is_none() -> None:
    assert half_life_in({}, "half_life") is None
    assert half_life_in({"half_life": 3}, "half_life") == 3.0


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "3", True, [3]])
def test_a_half_life_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(BundleRefused, match="half_life must be a number above 0"):
        half_life_in({"half_life": value}, "half_life")


def test_fold_in_leans_to_the_newest_items() -> None:
    items = np.eye(4, dtype=np.float32)
    solver = AlsFoldIn(items, items.T @ items, regularization=0.1, alpha=4.0, half_life=1.0)
    vector = solver.solve(np.array([3, 0, 2]))
    confidences = {2: 4.0, 0: 2.0, 3: 1.0}
    expected = [c / (1.1 + c - 1) if (c := confidences.get(item)) else 0.0 for item in range(4)]
    np.testing.assert_allclose(vector, expected, rtol=1e-6)
