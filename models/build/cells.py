"""An inverted file over item vectors: cells by k-means, and how many of them a query has to look into.

Voronoi cells around centroids that Lloyd's rounds settle on a sample, as in J. Sivic and A. Zisserman, "Video Google",
ICCV 2003, section 3. The centroids are many and the cells small, since reading a centroid costs a query as much as
reading a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from models.forked import Answer, answers, cores, shares
from service.bundle.manifest import Recall
from service.domain import Space
from service.recommender.exact import Cells, ExactIndex

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
_CELLS_PER_ROOT = 10
"""So many times the square root of the number of vectors: 1,000,000 make 10,000 cells of 100."""
_SAMPLED, _ROUNDS = 64, 6
"""Vectors a cell that the rounds see, and rounds. Better centroids mean fewer cells to search."""
_WORTH_A_FORK = 50_000
_FEWEST_PROBES, _STEP = 8, 1.25
_LARGEST_SHARE = 0.5
"""Of all cells. Beyond, nothing is gained on reading everything."""


@dataclass(frozen=True, slots=True)
class InCells:
    """order: the vectors' places, cell by cell, in each cell in the order given. cells: of the vectors so ordered."""

    order: Rows
    cells: Cells

    def index(self, vectors: Vectors, space: Space) -> ExactIndex:
        """Search of the vectors, which are those the cells were made of, in their own order: a row is a place there."""
        rows = self.order.astype(np.int32)
        position_of = np.empty_like(rows)
        position_of[rows] = np.arange(len(rows), dtype=np.int32)
        return ExactIndex(np.ascontiguousarray(vectors[rows]), space, rows, position_of, self.cells)


def in_cells(vectors: Vectors, *, seed: int) -> InCells:
    """Put vectors, float32 (n, dim), into cells: each to its nearest centroid. Equal inputs end equal."""
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
    return InCells(np.argsort(cell, kind="stable"), Cells(centroids, starts))


def _nearest(vectors: Vectors, centroids: Vectors) -> npt.NDArray[np.int32]:
    """The nearest centroid of each vector, int32 (n,). One that is only nearly so would double the cells to search."""
    search = ExactIndex(centroids, "l2").search

    def part(some: slice) -> Answer:
        nearest = (search(vector, 1, None, None)[0][0] for vector in vectors[some])
        return Answer(arrays={"nearest": np.fromiter(nearest, np.int32)})

    parts = shares(len(vectors), cores() if len(vectors) >= _WORTH_A_FORK else 1)
    return np.concatenate(
        [found.arrays["nearest"] for found in answers([partial(part, some) for some in parts])]
    )


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
