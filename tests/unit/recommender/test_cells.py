"""Search of the cells near a query, beside exact search of everything."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.build.cells import in_cells, probes_tried
from service.domain import Space
from service.native import Scan
from service.recommender.exact import ExactIndex

Vectors = npt.NDArray[np.float32]
CENTROIDS = Scan(np.eye(2, 4, dtype=np.float32), False)


def around_topics(n: int, dim: int, seed: int, *, spread: float = 0.6) -> Vectors:
    """Float32 (n, dim) of unit norm, in bunches: what towers leave."""
    draw = np.random.default_rng(seed)
    topics = draw.normal(size=(max(1, n // 40), dim))
    vectors = topics[draw.integers(0, len(topics), n)] + spread * draw.normal(size=(n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def celled(vectors: Vectors, space: Space) -> tuple[ExactIndex, int]:
    """Search by cells whose rows are places in `vectors`; and how many cells there are."""
    made = in_cells(vectors, seed=1)
    return made.index(vectors, space), len(made.cells.centroids)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 1500),
    dim=st.integers(1, 40),
    k=st.integers(0, 30),
    space=st.sampled_from(["ip", "cosine", "l2"]),
    share=st.sampled_from([0.0, 0.1, 0.95, 1.0]),
    masked=st.booleans(),
)
def test_all_cells_together_hold_what_exact_search_finds(
    seed: int, n: int, dim: int, k: int, space: Space, share: float, masked: bool
) -> None:
    vectors = around_topics(n, dim, seed)
    index, n_cells = celled(vectors, space)
    draw = np.random.default_rng(seed)
    excluded = draw.permutation(n)[: int(n * share)].astype(np.int32)
    mask = draw.random(n) < 0.3 if masked else None
    for query in draw.normal(size=(3, dim)).astype(np.float32):
        exact, scores = index.search(query, k, excluded, mask)
        rows, found = index.search_cells(query, k, excluded, mask, n_cells)
        np.testing.assert_array_equal(found, scores)
        apart = scores[:-1] > scores[1:] if len(scores) > 1 else np.ones(0, np.bool_)
        if apart.all():  # which of two equal scores stands first depends on the cell
            np.testing.assert_array_equal(rows, exact)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(200, 1500),
    k=st.integers(1, 30),
    n_probe=st.integers(1, 30),
    share=st.sampled_from([0.0, 0.1, 0.95]),
    masked=st.booleans(),
)
def test_a_few_cells_answer_in_full_order_and_only_with_what_may_be_found(
    seed: int, n: int, k: int, n_probe: int, share: float, masked: bool
) -> None:
    index, _ = celled(around_topics(n, 12, seed), "ip")
    draw = np.random.default_rng(seed)
    excluded = draw.permutation(n)[: int(n * share)].astype(np.int32)
    mask = draw.random(n) < 0.1 if masked else None
    may = np.ones(n, np.bool_) if mask is None else mask.copy()
    may[excluded] = False
    query = draw.normal(size=12).astype(np.float32)
    rows, scores = index.search_cells(query, k, excluded, mask, n_probe)
    assert len(rows) == len(set(rows.tolist())) == min(k, may.sum())
    assert may[rows].all()
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_array_equal(scores, index.scores(query, rows))


def found(index: ExactIndex, queries: Vectors, n_probe: int, dropped: int, k: int = 10) -> float:
    """Share of the best k that are found when the `dropped` best of all may not be."""
    hits = 0
    for query in queries:
        best = index.search(query, dropped + k, None, None)[0]
        rows, _ = index.search_cells(query, k, best[:dropped], None, n_probe)
        hits += len(np.intersect1d(rows, best[dropped:]))
    return hits / (k * len(queries))


def test_a_share_of_the_cells_holds_nearly_all_of_the_best() -> None:
    vectors = around_topics(20_000, 32, 3, spread=1.0)
    index, n_cells = celled(vectors[:19_900], "cosine")
    queries = vectors[19_900:]
    truth = [index.search(query, 100, None, None)[0] for query in queries]
    tried = list(probes_tried(index, n_cells, queries, truth, 0.99))
    n_probe, recall = tried[-1]
    assert recall.at_10 >= 0.99 > tried[-2][1].at_10
    assert n_probe < n_cells / 5
    index.search_cells(queries[0], 10, None, None, n_probe)
    assert 0 < index.read < 19_900 / 4
    # More is searched where more is asked for, and where the best of all have been seen.
    assert found(index, queries, n_probe, 0, k=60) >= 0.97
    assert found(index, queries, n_probe, 50) >= 0.97
    # So it is where a filter lets few through.
    mask = np.random.default_rng(4).random(19_900) < 0.05
    hits = 0
    for query in queries:
        rows, _ = index.search_cells(query, 10, None, mask, n_probe)
        hits += len(np.intersect1d(rows, index.search(query, 10, None, mask)[0]))
    assert hits >= 0.97 * 10 * len(queries)
    index.search_cells(queries[0], 10, truth[0][:50], None, n_probe)
    assert index.read > 19_900 / n_cells * n_probe


def test_each_vector_stands_in_the_cell_of_its_nearest_centroid() -> None:
    vectors = around_topics(3000, 16, 5)
    made = in_cells(vectors, seed=2)
    order, cells = made.order, made.cells
    assert np.sort(order).tolist() == list(range(3000))
    cell = np.repeat(np.arange(len(cells.centroids)), np.diff(cells.starts))
    between = vectors[order].astype(np.float64)[:, None] - cells.centroids.astype(np.float64)[None]
    distances = np.linalg.norm(between, axis=2)
    own = distances[np.arange(3000), cell]
    np.testing.assert_allclose(own, distances.min(axis=1), atol=1e-5)
    # Settled: a cell's centroid is about where its vectors are.
    assert np.median(own) < 0.75 * np.median(np.sort(distances, axis=1)[:, 10])
    again = in_cells(vectors, seed=2)
    np.testing.assert_array_equal(order, again.order)
    np.testing.assert_array_equal(cells.centroids, again.cells.centroids)


def test_cells_made_on_several_cores_are_those_made_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = around_topics(500, 8, 6)
    alone = in_cells(vectors, seed=3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr("models.build.cells._WORTH_A_FORK", 1)
    together = in_cells(vectors, seed=3)
    np.testing.assert_array_equal(alone.order, together.order)
    np.testing.assert_array_equal(alone.cells.centroids, together.cells.centroids)


def test_the_fewest_vectors_make_a_cell() -> None:
    made = in_cells(np.eye(2, dtype=np.float32), seed=0)
    assert (made.order.tolist(), made.cells.starts.tolist()) == ([0, 1], [0, 2])


def test_a_query_that_is_not_a_number_finds_nothing_in_cells() -> None:
    index, _ = celled(around_topics(300, 4, 2), "ip")
    for bad in (np.nan, np.inf, -np.inf):
        rows, _ = index.search_cells(np.full(4, bad, np.float32), 3, None, None, 2)
        assert len(rows) == 0


VECTORS = np.ones((6, 4), np.float32)


@pytest.mark.parametrize(
    ("centroids", "starts", "error"),
    [
        (CENTROIDS, [0, 3], ValueError),
        (CENTROIDS, [0, 3, 5], ValueError),
        (CENTROIDS, [0, 7, 6], ValueError),
        (CENTROIDS, [1, 3, 6], ValueError),
        (CENTROIDS, [0, -1, 6], ValueError),
        (CENTROIDS, None, TypeError),
        (Scan(np.eye(2, 4, dtype=np.float32), True), [0, 3, 6], ValueError),
        (Scan(np.eye(2, 5, dtype=np.float32), False), [0, 3, 6], ValueError),
        (np.eye(2, 4, dtype=np.float32), [0, 3, 6], TypeError),
    ],
)
def test_cells_of_other_vectors_are_refused(centroids: Any, starts: object, error: type[Exception]) -> None:
    given_starts = None if starts is None else np.array(starts, np.int32)
    with pytest.raises(error):
        Scan(VECTORS, False, None, None, centroids, given_starts)


@pytest.mark.parametrize(("n_probe", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
def test_a_number_of_cells_that_is_none_is_refused(n_probe: int, error: type[Exception]) -> None:
    scan = Scan(VECTORS, False, None, None, CENTROIDS, np.array([0, 3, 6], np.int32))
    with pytest.raises(error):
        scan.search_cells(VECTORS[0], 1, None, None, n_probe)


def test_without_cells_none_are_searched() -> None:
    with pytest.raises(ValueError, match="no cells"):
        Scan(VECTORS, False).search_cells(VECTORS[0], 1, None, None, 1)
