"""Accuracy metrics: known answers, the plain reference, and what must hold of any list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_judge import judge

from models.evaluation.metrics import NOWHERE, Codes, Relevant, accuracy, as_ranking, hits

MONOTONE = ("Recall", "MAPr", "HR", "MRR")
lists = st.lists(st.lists(st.integers(0, 15), max_size=12, unique=True), min_size=1, max_size=8)


def table_of(rows: list[list[int]], width: int = 12) -> Codes:
    table = np.full((len(rows), width), NOWHERE, np.int64)
    for row, items in zip(table, rows, strict=True):
        row[: len(items)] = items
    return table


def relevant_of(rows: list[set[int]]) -> Relevant:
    users = np.array([user for user, items in enumerate(rows) for _ in items], np.int64)
    items = np.array([item for items in rows for item in items], np.int64)
    return Relevant.of_pairs(users, items, len(rows))


@st.composite
def populations(draw: st.DrawFn) -> tuple[list[list[int]], list[set[int]]]:
    recs = draw(lists)
    truth = st.sets(st.integers(0, 20), min_size=1, max_size=8)
    return recs, [draw(truth) for _ in recs]


def test_one_user_by_hand() -> None:
    # Hits at ranks 1 and 3 of four true items, k = 3.
    scores = accuracy(table_of([[5, 9, 7]]), relevant_of([{5, 7, 1, 2}]), 3)
    assert scores["Recall@3"][0] == pytest.approx(2 / 4)
    assert scores["Precision@3"][0] == pytest.approx(2 / 3)
    assert scores["MAP@3"][0] == pytest.approx((1 + 2 / 3) / 3)
    assert scores["MAPr@3"][0] == pytest.approx((1 + 2 / 3) / 4)
    assert scores["NDCG@3"][0] == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2))
    assert (scores["MRR@3"][0], scores["HR@3"][0]) == (1, 1)


def test_user_without_recommendations_scores_zero_everywhere() -> None:
    scores = accuracy(table_of([[]]), relevant_of([{5}]), 10)
    assert {float(values[0]) for values in scores.values()} == {0.0}


def test_table_without_columns_scores_zero() -> None:
    scores = accuracy(np.empty((2, 0), np.int64), relevant_of([{1}, {2}]), 5)
    assert {float(values.sum()) for values in scores.values()} == {0.0}


def test_user_without_held_out_items_is_refused() -> None:
    with pytest.raises(ValueError, match="without held-out items"):
        accuracy(table_of([[1], [2]]), Relevant.of_pairs(np.array([0]), np.array([1]), 2), 3)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        accuracy(table_of([[1]]), relevant_of([{1}]), 0)


def test_rows_of_two_populations_are_refused() -> None:
    with pytest.raises(ValueError, match="1 rows of recommendations for 2 users"):
        hits(table_of([[1]]), relevant_of([{1}, {2}]))


def test_repeated_pairs_count_once() -> None:
    relevant = Relevant.of_pairs(np.array([1, 0, 1, 1]), np.array([7, 3, 7, 2]), 3)
    assert relevant.counts.tolist() == [1, 2, 0]
    assert relevant.items.tolist() == [3, 2, 7]


def test_select_keeps_the_order_asked_for() -> None:
    chosen = relevant_of([{1}, {2, 3}, {4, 5, 6}]).select(np.array([2, 0]))
    assert (chosen.counts.tolist(), chosen.items.tolist()) == ([3, 1], [4, 5, 6, 1])


def test_ranking_closes_gaps_and_keeps_the_best_place_of_a_repeat() -> None:
    table = np.array([[4, NOWHERE, 4, 2, 9, 2], [NOWHERE] * 6])
    assert as_ranking(table).tolist() == [[4, 2, 9, -1, -1, -1], [-1] * 6]


@given(populations(), st.integers(1, 15))
def test_agrees_with_the_plain_reference(population: tuple[list[list[int]], list[set[int]]], k: int) -> None:
    recs, truth = population
    fast = accuracy(table_of(recs), relevant_of(truth), k)
    pairs = [(user, item) for user, items in enumerate(truth) for item in items]
    slow = judge(dict(enumerate(recs)), pairs, None, k)
    assert {name: pytest.approx(values.mean(), abs=1e-12) for name, values in fast.items()} == slow


@given(populations(), st.integers(1, 15))
def test_bounded_by_zero_and_one(population: tuple[list[list[int]], list[set[int]]], k: int) -> None:
    recs, truth = population
    for values in accuracy(table_of(recs), relevant_of(truth), k).values():
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@given(populations(), st.integers(1, 14))
def test_a_longer_list_never_lowers_the_monotone_metrics(
    population: tuple[list[list[int]], list[set[int]]], k: int
) -> None:
    recs, truth = population
    shorter, longer = (accuracy(table_of(recs), relevant_of(truth), size) for size in (k, k + 1))
    for name in MONOTONE:
        assert (longer[f"{name}@{k + 1}"] >= shorter[f"{name}@{k}"] - 1e-12).all()


@given(st.sets(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 12))
def test_perfect_ranking_scores_one(truth: set[int], k: int) -> None:
    scores = accuracy(table_of([sorted(truth)]), relevant_of([truth]), k)
    for name in ("NDCG", "MAP", "MRR", "HR"):
        assert scores[f"{name}@{k}"][0] == pytest.approx(1)
    if k <= len(truth):
        assert scores[f"Precision@{k}"][0] == pytest.approx(1)
    else:
        assert scores[f"Recall@{k}"][0] == pytest.approx(1)


@given(populations(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_users_may_come_in_any_order(
    population: tuple[list[list[int]], list[set[int]]], k: int, random: np.random.Generator
) -> None:
    recs, truth = population
    order = np.argsort([random.random() for _ in recs])
    straight = accuracy(table_of(recs), relevant_of(truth), k)
    shuffled = accuracy(table_of([recs[i] for i in order]), relevant_of([truth[i] for i in order]), k)
    for name, values in straight.items():
        assert shuffled[name] == pytest.approx(values[order])


@given(populations(), st.integers(1, 12), st.permutations(range(21)))
def test_item_codes_are_only_names(
    population: tuple[list[list[int]], list[set[int]]], k: int, renamed: list[int]
) -> None:
    recs, truth = population
    before = accuracy(table_of(recs), relevant_of(truth), k)
    after = accuracy(
        table_of([[renamed[i] for i in items] for items in recs]),
        relevant_of([{renamed[i] for i in items} for items in truth]),
        k,
    )
    for name, values in before.items():
        assert after[name] == pytest.approx(values)


@given(populations(), st.integers(1, 12), st.permutations(range(12)))
def test_order_within_the_list_only_moves_the_ranked_metrics(
    population: tuple[list[list[int]], list[set[int]]], k: int, order: list[int]
) -> None:
    recs, truth = population
    heads = [items[:k] for items in recs]
    shuffled = [[items[i] for i in order if i < len(items)] for items in heads]
    before, after = (accuracy(table_of(rows), relevant_of(truth), k) for rows in (heads, shuffled))
    for name in ("Recall", "Precision", "HR"):
        assert after[f"{name}@{k}"] == pytest.approx(before[f"{name}@{k}"])
