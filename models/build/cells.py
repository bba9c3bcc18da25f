"""An inverted file over item vectors: cells by k-means, and how many of them a query has to look into.

Voronoi cells around centroids that Lloyd's rounds settle on a sample, as in J. Sivic and A. Zisserman, "Video Google",
ICCV 2003, section 3. The centroids are many and the cells small, since reading a centroid costs a query as much as
reading a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Recall
from service.recommender.exact import Cells, ExactIndex

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
_CELLS_PER_ROOT = 16
"""So many times the square root of the number of vectors: 1,000,000 make 16,000 cells of 62."""
_SAMPLED, _ROUNDS = 16, 4
"""Vectors a cell that the rounds see, and rounds."""
_FEWEST_PROBES, _STEP = 8, 1.25
_LARGEST_SHARE = 0.5
"""Of all cells. Beyond, nothing is gained on reading everything."""


def cells_of(vectors: Vectors, *, seed: int) -> tuple[Rows, Cells]:
    """The order that puts the vectors (n, dim) cell by cell, each cell's in the order given; and the cells.

    Each vector stands with its nearest centroid. Equal inputs give equal cells.
    """
    n, dim = vectors.shape
    n_cells = max(1, min(n // 4, _CELLS_PER_ROOT * round(n**0.5)))
    chance = np.random.default_rng(seed)
    sample = vectors[np.sort(chance.choice(n, min(n, _SAMPLED * n_cells), replace=False))]
    centroids = sample[np.sort(chance.choice(len(sample), n_cells, replace=False))]
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centroids)
        sums = np.zeros((n_cells, dim), np.float64)
        np.add.at(sums, nearest, sample)
        counts = np.bincount(nearest, minlength=n_cells)
        inhabited = counts > 0
        centroids = centroids.copy()
        centroids[inhabited] = sums[inhabited] / counts[inhabited, None]
    cell = _nearest(vectors, centroids)
    starts = np.zeros(n_cells + 1, np.int32)
    np.cumsum(np.bincount(cell, minlength=n_cells), out=starts[1:])
    return np.argsort(cell, kind="stable"), Cells(centroids, starts)


def _nearest(vectors: Vectors, centroids: Vectors) -> npt.NDArray[np.int32]:
    """The nearest centroid of each vector: int32 (n,)."""
    search = ExactIndex(centroids, "l2").search
    return np.array([search(vector, 1, None, None)[0][0] for vector in vectors], np.int32)


def probes_tried(
    index: ExactIndex, n_cells: int, queries: Vectors, truth: Sequence[Rows], wanted: float
) -> Iterator[tuple[int, Recall]]:
    """Numbers of cells to search, rising, with what each finds, until the best ten are found to the share `wanted`.

    truth: the best rows of each query, first the best.
    """
    n_probe = _FEWEST_PROBES
    while n_probe <= max(_FEWEST_PROBES, _LARGEST_SHARE * n_cells):
        n_probe = min(n_probe, n_cells)
        recall = recall_of(_finder(index, n_probe), queries, truth)
        yield n_probe, recall
        if recall.at_10 >= wanted:
            return
        n_probe = round(_STEP * n_probe)


def _finder(index: ExactIndex, n_probe: int) -> Callable[[Vectors, int], list[Rows]]:
    return lambda queries, k: [index.search_cells(query, k, None, None, n_probe)[0] for query in queries]


def recall_of(
    find: Callable[[Vectors, int], Sequence[Rows]], queries: Vectors, truth: Sequence[Rows]
) -> Recall:
    """Share of the exact top 10 and top 100 found, averaged over queries. truth: best rows first, a query each."""
    at = {}
    for k in (10, 100):
        wanted = min(k, len(truth[0]))
        found = find(queries, wanted)
        hits = sum(len(np.intersect1d(row, exact[:wanted])) for row, exact in zip(found, truth, strict=True))
        at[k] = round(hits / (wanted * len(queries)), 6)
    return Recall(at_10=at[10], at_100=at[100], queries=len(queries))
