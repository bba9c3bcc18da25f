"""Positives by value, lists at depth, surprise and diversity, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.metrics import NOWHERE, Relevant, accuracy
from models.evaluation.unexpectedness import (
    cosine_diversity,
    normalised_pmi,
    unexpected_relevance,
    unexpectedness,
    unexpectedness_of_places,
)

# Items 0 and 1 are read by the same two of four users, item 2 with 0 once, item 3 by nobody.
TRAINING = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]))


def test_precision_and_reciprocal_rank_count_what_was_heard_for_three_quarters() -> None:
    users, items = np.array([0, 0, 0, 1, 2]), np.array([7, 8, 9, 7, 5])
    values = np.array([0.75, 0.74, 1.0, 0.2, np.nan])
    relevant = Relevant.of_values(users, items, values, 3)
    assert relevant.counts.tolist() == [2, 0, 0]
    with_any = np.flatnonzero(relevant.counts)
    lists = np.array([[8, 3, 7, 9], [7, 1, 2, 3], [5, 1, 2, 3]])
    scores = accuracy(lists[with_any], relevant.select(with_any), 10)
    assert scores["Precision@10"].tolist() == pytest.approx([0.2])
    assert scores["MRR@10"].tolist() == pytest.approx([1 / 3])


def test_one_positive_row_of_a_pair_suffices() -> None:
    relevant = Relevant.of_values(np.array([0, 0]), np.array([4, 4]), np.array([0.1, 0.9]), 1)
    assert relevant.items.tolist() == [4]


@pytest.mark.parametrize(
    ("k", "found", "ranks"), [(10, 1, [1]), (50, 2, [1, 50]), (200, 4, [1, 50, 101, 200])]
)
def test_recall_and_ndcg_at_depth(k: int, found: int, ranks: list[int]) -> None:
    relevant = Relevant.of_pairs(np.zeros(4, np.int64), np.array([0, 49, 100, 199]), 1)
    scores = accuracy(np.arange(200)[None, :], relevant, k)
    ideal = sum(1 / np.log2(rank + 1) for rank in range(1, 5))
    assert scores[f"Recall@{k}"][0] == pytest.approx(found / 4)
    assert scores[f"NDCG@{k}"][0] == pytest.approx(sum(1 / np.log2(rank + 1) for rank in ranks) / ideal)


def test_recall_at_100_misses_rank_101() -> None:
    relevant = Relevant.of_pairs(np.zeros(2, np.int64), np.array([99, 100]), 1)
    assert accuracy(np.arange(200)[None, :], relevant, 100)["Recall@100"][0] == pytest.approx(0.5)


def test_normalised_pmi_by_hand() -> None:
    # p_ij = 1/4, p_i = p_j = 1/2: independent. Half of the users, always together: 1.
    assert normalised_pmi([1, 2, 0, 4], [2, 2, 2, 4], [2, 2, 2, 4], 4) == pytest.approx([0, 1, -1, 1])
    assert normalised_pmi(2, 4, 3, 8) == pytest.approx(np.log(2 * 8 / 12) / np.log(4))


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), *[st.integers(0, n)] * 3)))
def test_normalised_pmi_is_within_one_of_zero(drawn: tuple[int, int, int, int]) -> None:
    n, a, b, both = drawn
    both = max(min(a, b, both), a + b - n)  # as many as two sets of these sizes can share
    assert -1 - 1e-12 <= normalised_pmi(both, a, b, n) <= 1 + 1e-12


def test_unexpectedness_is_the_most_unlike_of_the_history() -> None:
    histories = sp.csr_matrix(np.array([[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]))
    lists = np.array([[1, 2, 3], [1, NOWHERE, NOWHERE], [0, 1, 2]])
    places = unexpectedness_of_places(lists, histories, TRAINING)
    # 1 goes with 0 always (-1), 2 goes with 0 by chance (0), nobody read 3 (1).
    assert places[0] == pytest.approx([-1, 0, 1])
    assert places[1][0] == pytest.approx(0)  # always with 0, by chance with 2: the latter counts
    assert np.isnan(places[1, 1:]).all()
    assert np.isnan(places[2]).all()
    assert unexpectedness(places).value == pytest.approx(0)


def test_repeated_training_rows_count_once() -> None:
    twice = sp.csr_matrix((np.ones(3), ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    places = unexpectedness_of_places(np.array([[0]]), sp.csr_matrix(np.array([[0, 1]])), twice)
    assert places[0, 0] == 1


def test_item_unknown_to_training_is_unexpected() -> None:
    places = unexpectedness_of_places(np.array([[77]]), sp.csr_matrix(np.array([[1, 0, 0, 0]])), TRAINING)
    assert places[0, 0] == 1


def test_relevant_and_unexpected_is_serendipitous() -> None:
    places = np.array([[0.5, 1.0, np.nan], [np.nan, np.nan, np.nan], [0.8, 0.2, 0.2]])
    hit = np.array([[True, False, False], [True, False, False], [False, False, True]])
    assert unexpected_relevance(places, hit).value == pytest.approx((0.5 / 2 + 0.2 / 3) / 2)


def test_cosine_diversity_by_hand() -> None:
    vectors = np.array([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0], [0.0, 0.0]])
    lists = np.array([[0, 1, 2], [0, 2, NOWHERE], [0, 3, NOWHERE], [0, NOWHERE, NOWHERE]])
    # Pairs of the first list: 0, 1 and 0 alike. The second is one direction. A vector of length 0 is like none.
    assert cosine_diversity(lists, vectors).value == pytest.approx((2 / 3 + 0 + 1) / 3)
