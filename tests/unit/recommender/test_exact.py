"""The norm-bounded scan against brute force."""

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


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3000),
    k=st.integers(1, 40),
    space=st.sampled_from(["ip", "cosine", "l2"]),
    skew=st.sampled_from([1.2, 3.0, 50.0]),
    share=st.sampled_from([0.0, 0.1, 0.95, 1.0]),
    tuned=st.booleans(),
)
def test_finds_the_same_scores_as_brute_force(
    seed: int, n: int, k: int, space: Space, skew: float, share: float, tuned: bool
) -> None:
    index, generator = _index(seed, n, 6, space, skew)
    queries = generator.normal(size=(3, 6)).astype(np.float32)
    if tuned:
        index.tune(generator.normal(size=(20, 6)).astype(np.float32), k)
    excluded = generator.permutation(n)[: int(n * share)]
    for query in queries:
        positions, scores = index.search(query, k, excluded)
        expected = _brute(index, query, excluded)
        best = np.sort(expected[expected > -np.inf])[::-1][:k]
        assert len(set(positions.tolist())) == len(positions) == len(best)
        assert not np.isin(positions, excluded).any()
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        np.testing.assert_allclose(scores, best, rtol=1e-4, atol=1e-5 * scale)
        np.testing.assert_allclose(expected[positions], best, rtol=1e-4, atol=1e-5 * scale)
        assert (np.diff(scores) <= 0).all()


def test_reads_few_vectors_when_norms_fall_off() -> None:
    index, generator = _index(1, 20_000, 16, "ip", 1.2)
    read = index.tune(generator.normal(size=(50, 16)).astype(np.float32), 10)
    assert read < 0.1 * index.size


def test_a_query_without_a_positive_score_still_gets_the_best_items() -> None:
    vectors = -np.abs(np.random.default_rng(3).normal(size=(500, 4))).astype(np.float32)
    vectors = vectors[np.argsort(-np.linalg.norm(vectors, axis=1))]
    index = ExactIndex(vectors, "ip")
    index.first_block = 16
    query = np.ones(4, np.float32)
    positions, _ = index.search(query, 5, None)
    assert set(positions.tolist()) == set(np.argsort(-(vectors @ query))[:5].tolist())


@pytest.mark.parametrize("space", ["ip", "cosine", "l2"])
def test_search_among_ranks_only_the_given_positions(space: Space) -> None:
    index, generator = _index(5, 300, 6, space, 3.0)
    among = np.sort(generator.permutation(300)[:40])
    query = generator.normal(size=6).astype(np.float32)
    positions, scores = index.search_among(query, 7, among)
    expected = _brute(index, query, np.setdiff1d(np.arange(300), among))
    assert positions.tolist() == np.argsort(-expected)[:7].tolist()
    np.testing.assert_allclose(scores, np.sort(expected)[::-1][:7], rtol=1e-4, atol=1e-4)
