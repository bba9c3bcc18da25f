"""Novelty, diversity, serendipity and popularity bias by hand, and against the plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from reference_judge import judge

from models.evaluation.beyond_accuracy import (
    Training,
    average_popularity,
    average_recommendation_popularity,
    coverage,
    gini,
    head_items,
    intra_list_diversity,
    long_tail_share,
    miuf,
    novelty,
    rarity,
    serendipity,
    user_coverage,
)
from models.evaluation.metrics import NOWHERE


def training_of(*counts: int, users: tuple[int, ...] | None = None, n_users: int = 8) -> Training:
    return Training(np.array(counts), np.array(users or counts), n_users)


def test_novelty_weighs_places_and_miuf_weighs_users() -> None:
    training = training_of(8, 4, 1)
    lists = np.array([[0, 1], [2, NOWHERE]])
    assert novelty(lists, training).value == pytest.approx((0 + 1 + 3) / 3)
    assert miuf(lists, training).value == pytest.approx((0.5 + 3) / 2)


def test_novelty_counts_rows_and_miuf_counts_users() -> None:
    training = training_of(8, users=(2,))
    assert novelty(np.array([[0]]), training).value == pytest.approx(0)
    assert miuf(np.array([[0]]), training).value == pytest.approx(2)


def test_item_that_training_never_saw_counts_as_seen_once() -> None:
    training = training_of(8, 0)
    assert novelty(np.array([[1]]), training).value == pytest.approx(3)
    assert miuf(np.array([[77]]), training).value == pytest.approx(3)


def test_popularity_of_lists() -> None:
    training = training_of(6, 2, users=(3, 2))
    lists = np.array([[0, 1], [1, NOWHERE], [NOWHERE, NOWHERE]])
    assert average_popularity(lists, training).value == pytest.approx((6 + 2 + 2) / 3)
    assert average_recommendation_popularity(lists, training).value == pytest.approx((2.5 + 2) / 2)


def test_head_is_the_fewest_items_that_hold_four_fifths_of_interactions() -> None:
    assert head_items(training_of(50, 10, 30, 10)).tolist() == [True, False, True, False]
    assert head_items(training_of(50, 10, 29, 11)).tolist() == [True, False, True, True]


def test_long_tail_share_counts_what_is_outside_the_head() -> None:
    assert long_tail_share(np.array([[0, 1], [3, 2]]), training_of(50, 10, 30, 10)).value == pytest.approx(
        0.5
    )


def test_intra_list_diversity_is_the_mean_of_pairwise_hamming_distances() -> None:
    features = sp.csr_matrix(np.array([[0, 0], [0, 1], [1, 1], [0, 0]]))
    assert intra_list_diversity(np.array([[0, 1, 2]]), features).value == pytest.approx(4 / 3)
    assert intra_list_diversity(np.array([[0, 1, NOWHERE]]), features).value == pytest.approx(1)
    assert intra_list_diversity(np.array([[0, 3, NOWHERE]]), features).value == pytest.approx(0)
    assert intra_list_diversity(np.array([[2, NOWHERE, NOWHERE]]), features).value == pytest.approx(0)


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=4), st.integers(2, 6), st.randoms())
def test_diversity_without_pairs_equals_diversity_over_pairs(
    orders: list[list[int]], k: int, random: np.random.Generator
) -> None:
    features = np.array([[int(random.random() < 0.5) for _ in range(4)] for _ in range(6)])
    lists = np.array(orders)[:, :k]
    pairwise = [
        np.mean([(features[a] != features[b]).sum() for i, a in enumerate(row) for b in row[:i]])
        for row in lists
    ]
    assert intra_list_diversity(lists, sp.csr_matrix(features)).value == pytest.approx(np.mean(pairwise))


def test_serendipity_by_hand() -> None:
    # Catalogue of 5; popularity ranks with ties dense: item 0 -> 1, items 1 and 2 -> 2, item 3 -> 3, item 4 -> 4.
    training = training_of(9, 4, 4, 2, 1)
    lists, hit = np.array([[3, 0, 4]]), np.array([[True, True, False]])
    # Rank 1: P = 5/5, P^U = 3/5, relevant. Rank 2: P = 4/5, P^U = 5/5: nothing gained. Rank 3: not relevant.
    assert serendipity(lists, hit, training, 3).value == pytest.approx((2 / 5) / 3)


def test_serendipity_ranks_an_unseen_item_after_all_seen_ones() -> None:
    training = training_of(9, 4)
    gained = serendipity(np.array([[50]]), np.array([[True]]), training, 1).value
    assert gained == pytest.approx(1 - (2 + 1 - 3) / 2)


def test_coverage_counts_distinct_items_of_the_catalogue() -> None:
    assert coverage(np.array([[1, 2], [2, NOWHERE]]), 8) == pytest.approx(2 / 8)
    assert coverage(np.empty((0, 3), np.int64), 0) == 0


def test_gini_is_zero_for_equal_exposure_and_one_for_a_single_star() -> None:
    training = training_of(*[1] * 10)
    assert gini(np.arange(10).reshape(5, 2), training) == pytest.approx(0)
    assert gini(np.zeros((5, 1), np.int64), training) == pytest.approx(1)
    assert gini(np.zeros((5, 1), np.int64), training_of(1)) == 0


def test_gini_of_shares_by_hand() -> None:
    # Shares ascending 0, 1/6, 2/6, 3/6 with weights -3, -1, 1, 3 over n - 1 = 3.
    lists = np.array([[0, 1, 2], [0, 1, NOWHERE], [0, NOWHERE, NOWHERE]])
    assert gini(lists, training_of(5, 4, 3, 2)) == pytest.approx((-1 / 6 + 2 / 6 + 9 / 6) / 3)


def test_rarity_is_the_share_of_users_without_the_item() -> None:
    training = training_of(9, 9, 0, users=(6, 2, 0))
    lists = np.array([[0, 1], [2, NOWHERE], [NOWHERE, NOWHERE]])
    assert rarity(lists, training).value == pytest.approx(((2 / 8 + 6 / 8) / 2 + 1) / 2)


def test_user_coverage_counts_users_with_any_item() -> None:
    assert user_coverage(np.array([[0, 1], [2, NOWHERE], [NOWHERE, NOWHERE]])).value == pytest.approx(2 / 3)


@given(
    st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 11), max_size=6, unique=True), min_size=1),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(1, 6),
)
def test_catalogue_metrics_agree_with_the_plain_reference(
    recs: dict[int, list[int]], train: list[tuple[int, int]], k: int
) -> None:
    slow = judge(recs, [(user, 0) for user in recs], train, k)
    counts = np.bincount([item for _, item in train], minlength=10)
    training = Training(counts, counts, len({user for user, _ in train}))
    table = np.full((len(recs), k), NOWHERE, np.int64)
    for row, items in zip(table, recs.values(), strict=True):
        row[: len(items[:k])] = items[:k]
    assert coverage(table, training.catalogue) == pytest.approx(slow[f"coverage@{k}"])
    if f"avgpop@{k}" in slow:
        assert average_popularity(table, training).value == pytest.approx(slow[f"avgpop@{k}"])
        assert novelty(table, training).value == pytest.approx(slow[f"novelty@{k}"], abs=1e-12)
    else:
        assert np.isnan(average_popularity(table, training).value)
