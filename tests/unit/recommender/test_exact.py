"""Exact search against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import Space
from service.recommender.exact import ExactIndex


def _index(seed: int, n: int, dim: int, space: Space, skew: float) -> tuple[ExactIndex, np.random.Generator]:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(n, dim)).astype(np.float32)
    vectors *= (generator.pareto(skew, size=(n, 1)) + 0.01).astype(np.float32)
    if space == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-np.linalg.norm(vectors, axis=1), kind="stable")
    return ExactIndex(vectors[order], space), generator


def _brute(index: ExactIndex, query: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    vectors, asked = index.vectors.astype(np.float64), query.astype(np.float64)
    scores = -((vectors - asked) ** 2).sum(axis=1) if index.space == "l2" else vectors @ asked
    scores[excluded] = -np.inf
    return scores


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3000),
    dim=st.integers(1, 70),
    k=st.integers(0, 40),
    space=st.sampled_from(["ip", "cosine", "l2"]),
    skew=st.sampled_from([1.2, 3.0, 50.0]),
    share=st.sampled_from([0.0, 0.1, 0.95, 1.0]),
    masked=st.booleans(),
)
def test_finds_the_same_scores_as_brute_force(
    seed: int, n: int, dim: int, k: int, space: Space, skew: float, share: float, masked: bool
) -> None:
    index, generator = _index(seed, n, dim, space, skew)
    queries = generator.normal(size=(3, dim)).astype(np.float32)
    excluded = generator.permutation(n)[: int(n * share)].astype(np.int32)
    mask = generator.random(n) < 0.3 if masked else None
    out = np.union1d(excluded, np.flatnonzero(~mask)) if mask is not None else excluded
    for query in queries:
        positions, scores = index.search(query, k, excluded, mask)
        expected = _brute(index, query, out)
        best = np.sort(expected[expected > -np.inf])[::-1][:k]
        assert len(set(positions.tolist())) == len(positions) == len(best)
        assert not np.isin(positions, out).any()
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        np.testing.assert_allclose(scores, best, rtol=1e-4, atol=1e-5 * scale)
        np.testing.assert_allclose(expected[positions], best, rtol=1e-4, atol=1e-5 * scale)
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_array_equal(index.scores(query, positions), scores)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-38, 1e-20, 1.0, 1e15]),
    space=st.sampled_from(["ip", "l2"]),
)
def test_numbers_of_any_size_are_compared_rightly(seed: int, size: float, space: Space) -> None:
    generator = np.random.default_rng(seed)
    vectors = (generator.normal(size=(200, 5)) * size).astype(np.float32)
    index = ExactIndex(vectors, space)
    query = generator.normal(size=5).astype(np.float32)
    alone = index.scores(query, np.arange(200, dtype=np.int32))
    rows, scores = index.search(query, 7, None, None)
    np.testing.assert_array_equal(scores, alone[rows])
    np.testing.assert_array_equal(scores, np.sort(alone)[::-1][:7])


@pytest.mark.parametrize("dim", [64, 1024, 4096])
@pytest.mark.parametrize("space", ["ip", "l2"])
def test_scores_that_differ_by_no_more_than_rounding_lose_none_of_the_best(space: Space, dim: int) -> None:
    """Codes tell these numbers exactly and add up to sums that float32 rounds by more than the scores differ."""
    generator = np.random.default_rng(8)
    for _ in range(20):
        vectors = np.full((300, dim), 127, np.float32)
        vectors[:, -16:] = generator.integers(-2, 3, (300, 16))
        query = np.full(dim, 127, np.float32)
        query[-16:] = generator.integers(-2, 3, 16)
        index = ExactIndex(vectors, space)
        _, scores = index.search(query, 10, None, None)
        alone = index.scores(query, np.arange(300, dtype=np.int32))
        np.testing.assert_array_equal(scores, np.sort(alone)[::-1][:10])


def test_of_equal_scores_the_lower_place_stands_first() -> None:
    index = ExactIndex(np.ones((100, 3), np.float32), "cosine")
    rows, _ = index.search(np.ones(3, np.float32), 5, np.array([1, 3], np.int32), None)
    assert rows.tolist() == [0, 2, 4, 5, 6]


def test_a_zero_query_gets_the_first_places() -> None:
    index, _ = _index(2, 100, 4, "ip", 3.0)
    rows, scores = index.search(np.zeros(4, np.float32), 3, None, None)
    assert rows.tolist() == [0, 1, 2]
    assert scores.tolist() == [0.0, 0.0, 0.0]


def test_a_query_that_is_not_a_number_finds_nothing() -> None:
    index, _ = _index(2, 100, 4, "ip", 3.0)
    rows, _ = index.search(np.full(4, np.nan, np.float32), 3, None, None)
    assert len(rows) == 0


def test_reads_few_vectors_when_norms_fall_off() -> None:
    index, generator = _index(1, 20_000, 16, "ip", 1.2)
    read = []
    for query in generator.normal(size=(50, 16)).astype(np.float32):
        index.search(query, 10, None, None)
        read.append(index.read)
    assert np.mean(read) < 0.1 * index.size


def test_a_query_without_a_positive_score_still_gets_the_best_items() -> None:
    vectors = -np.abs(np.random.default_rng(3).normal(size=(500, 4))).astype(np.float32)
    vectors = vectors[np.argsort(-np.linalg.norm(vectors, axis=1))]
    query = np.ones(4, np.float32)
    rows, _ = ExactIndex(vectors, "ip").search(query, 5, None, None)
    assert set(rows.tolist()) == set(np.argsort(-(vectors @ query))[:5].tolist())


def test_vectors_of_some_rows_answer_by_row() -> None:
    """The catalogue has 6 rows; the model has vectors of three of them."""
    vectors = np.array([[3.0], [2.0], [1.0]], np.float32)
    rows = np.array([4, 0, 2], np.int32)
    index = ExactIndex(vectors, "ip", rows, np.array([1, -1, 2, -1, 0, -1], np.int32))
    query, unseen = np.ones(1, np.float32), np.array([4, 5], np.int32)
    assert index.search(query, 3, None, None)[0].tolist() == [4, 0, 2]
    assert index.search(query, 3, unseen, None)[0].tolist() == [0, 2]
    assert index.search(query, 3, unseen, np.arange(6) == 2)[0].tolist() == [2]
    np.testing.assert_array_equal(index.scores(query, np.array([5, 2], np.int32)), [np.nan, 1.0])
