"""How alike two slates are: worked examples, and the ends of the scales."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from service.policy.comparing import kendall_tau, overlap, rank_biased_overlap

slates = st.lists(st.integers(0, 15), unique=True, max_size=12)


def test_overlap_is_the_share_that_both_show() -> None:
    assert overlap([1, 2, 3, 4], [4, 3, 9, 8]) == 0.5
    assert overlap([1, 2], [1, 2, 3, 4]) == 0.5
    assert (overlap([], []), overlap([], [1])) == (1.0, 0.0)


def test_kendall_counts_pairs_in_the_same_order() -> None:
    assert kendall_tau([1, 2, 3], [1, 2, 3]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 8, 2], [2, 9, 1]) == -1
    assert kendall_tau([1, 8], [1, 9]) is None


@settings(deadline=None)
@given(st.permutations(range(9)))
def test_kendall_is_scipys(order: list[int]) -> None:
    ours = kendall_tau(list(range(9)), order)
    assert ours == pytest.approx(kendalltau(range(9), [order.index(item) for item in range(9)]).statistic)


def test_rank_biased_overlap_of_a_worked_example() -> None:
    """Agreement 0, 1, 2/3 at depths 1, 2, 3: (1-p)(0 + p + 2/3 p^2) + 2/3 p^3 at p = 1/2."""
    assert rank_biased_overlap([1, 2, 3], [2, 1, 4], p=0.5) == pytest.approx(
        0.5 * (0.5 + 2 / 3 / 4) + 2 / 3 / 8
    )


@settings(deadline=None)
@given(slates, slates)
def test_likeness_is_symmetric_and_on_its_scale(first: list[int], second: list[int]) -> None:
    for likeness in (overlap, rank_biased_overlap):
        value = likeness(first, second)
        assert 0 <= value <= 1 + 1e-12
        assert likeness(second, first) == value
        assert likeness(first, first) == pytest.approx(1)


def test_the_top_counts_most() -> None:
    best = list(range(10))
    top_swapped, end_swapped = [1, 0, *best[2:]], [*best[:8], 9, 8]
    assert rank_biased_overlap(best, top_swapped) < rank_biased_overlap(best, end_swapped) < 1
