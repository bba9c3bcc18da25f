"""Losses of learning to rank: gradients, probabilities, and what their minimum orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranker.losses import Floats, lambdarank, listmle, listnet, log_probability, ranknet

LOSSES = {"ranknet": ranknet, "lambdarank": lambdarank, "listnet": listnet, "listmle": listmle}
_SCORES = st.lists(st.integers(-40, 40), min_size=2, max_size=7, unique=True).map(lambda v: np.array(v) / 8.0)


@st.composite
def _queries(draw: st.DrawFn) -> tuple[Floats, Floats]:
    scores = draw(_SCORES)
    relevance = draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    return scores, np.array(relevance, np.float64)


@pytest.mark.parametrize("name", LOSSES)
@given(query=_queries())
def test_the_gradient_is_that_of_finite_differences(name: str, query: tuple[Floats, Floats]) -> None:
    scores, relevance = query
    _, gradient = LOSSES[name](scores, relevance)
    step = 1e-5  # smaller than half of any difference between scores, so the order stays
    for i in range(len(scores)):
        moved = np.zeros(len(scores))
        moved[i] = step
        up, down = (LOSSES[name](scores + sign * moved, relevance)[0] for sign in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@given(query=_queries())
def test_a_step_against_the_gradient_lowers_the_loss(name: str, query: tuple[Floats, Floats]) -> None:
    scores, relevance = query
    loss, gradient = LOSSES[name](scores, relevance)
    lower, _ = LOSSES[name](scores - 1e-5 * gradient, relevance)
    assert lower <= loss + 1e-12


@given(scores=st.lists(st.floats(-20, 20), min_size=1, max_size=5).map(np.array))
def test_the_probabilities_of_all_orders_sum_to_one(scores: Floats) -> None:
    total = sum(
        np.exp(log_probability(scores, np.array(order))) for order in permutations(range(len(scores)))
    )
    assert total == pytest.approx(1.0)


@given(query=_queries())
def test_listmle_is_minus_the_log_probability_of_the_best_order(query: tuple[Floats, Floats]) -> None:
    scores, relevance = query
    loss, _ = listmle(scores, relevance)
    best = np.argsort(-relevance, kind="stable")
    assert loss == pytest.approx(-log_probability(scores, best))


def test_lambdarank_counts_a_pair_by_what_its_swap_changes() -> None:
    # places 1 and 2 hold gain 0 and 1: swapped, DCG rises from 1/log2(3) to 1, which is the ideal.
    loss, gradient = lambdarank(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    change = 1.0 - 1.0 / np.log2(3)
    assert loss == pytest.approx(change * np.log1p(np.exp(1.0)))
    assert gradient == pytest.approx(np.array([1.0, -1.0]) * change / (1 + np.exp(-1.0)))


def test_lambdarank_at_k_ignores_pairs_below_it() -> None:
    scores, relevance = np.array([3.0, 2.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 1.0])
    _, at_one = lambdarank(scores, relevance, k=1)
    _, everywhere = lambdarank(scores, relevance)
    # items 1 and 2 are tied in relevance; at k = 1 their pair with item 3 lies below the cut and counts nothing
    assert at_one[3] == 0.0
    assert everywhere[3] < 0.0


@pytest.mark.parametrize("name", ["ranknet", "lambdarank"])
def test_nothing_to_tell_apart_costs_nothing(name: str) -> None:
    loss, gradient = LOSSES[name](np.array([0.5, -1.0]), np.zeros(2))
    assert loss == 0.0
    assert not gradient.any()
