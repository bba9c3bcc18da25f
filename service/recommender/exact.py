"""Exact maximum-inner-product search that reads only the vectors that can still win.

Items stand in order of falling norm. By Cauchy-Schwarz no item scores above |q| * |v|, so once the k-th best score
found so far exceeds |q| times the next norm, the rest can't enter (the bound of LEMP, Teflioudi et al., SIGMOD 2015,
section 3). On vectors whose norms fall off, as trained ALS items' do, that stops early; on equal norms it reads all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.domain import Space

Positions = npt.NDArray[np.integer]
_FIRST_BLOCK_QUANTILE = 0.8
_SLACK = 1.0 + 1e-5
"""float32 rounding of a dot product may exceed the bound by a few units in the last place."""


class ExactIndex:
    """vectors: float32 (n, dim) by falling norm, mapped or not. Positions are rows of it."""

    def __init__(self, vectors: npt.NDArray[np.float32], space: Space) -> None:
        self.vectors, self.space = vectors, space
        self.size = len(vectors)
        self.first_block = self.size
        self._half_squares: npt.NDArray[np.float32] | None = None
        if space == "l2":
            # |q - v|^2 = |q|^2 - 2 (q.v - |v|^2 / 2): ranking by the bracket ranks by falling distance.
            self._half_squares = np.einsum("nd,nd->n", vectors, vectors) / np.float32(2)
        # bisect reads a memoryview without making arrays; searchsorted would widen float32 to float64 each time.
        self._norms: npt.NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        self._falling = (-self._norms).data
        self._bounded = space == "ip"

    def tune(
        self, queries: npt.NDArray[np.float32], n: int, excluded: Sequence[Positions | None] | None = None
    ) -> float:
        """Set the first block to what most queries need; returns mean vectors read for these queries.

        `excluded` has one entry a query, as `search` takes it: dropping the best-scoring (seen) items lowers the
        score to beat, so the scan reads on.
        """
        if not self._bounded or len(queries) == 0:
            return float(self.size)
        needed = []
        for number, query in enumerate(queries):
            _, scores = self.search(query, n, excluded[number] if excluded else None)
            needed.append(self._needed(float(scores[-1]) if len(scores) >= n else 0.0, query))
        # A second block costs its own partition and merge, as much as reading thousands of vectors: avoid most.
        self.first_block = max(int(np.quantile(needed, _FIRST_BLOCK_QUANTILE)), min(self.size, 4 * n))
        return float(np.mean(np.maximum(needed, self.first_block)))

    def _needed(self, threshold: float, query: npt.NDArray[np.float32]) -> int:
        """How many leading positions may hold a score above `threshold`."""
        if threshold <= 0.0:
            return self.size
        return bisect_right(self._falling, -threshold / (math.sqrt(query @ query) * _SLACK))

    def search(
        self, query: npt.NDArray[np.float32], n: int, excluded: Positions | None
    ) -> tuple[Positions, npt.NDArray[np.float32]]:
        """Best `n` positions not in `excluded`, best first, with their scores (fewer if fewer are left).

        Scores are inner products, or -|q - v|^2 in space l2.
        """
        size, end = self.size, min(self.first_block, self.size)
        if excluded is not None and not len(excluded):
            excluded = None
        best, values = self._best_of(self._scores(query, 0, end, excluded), n)
        while end < size:
            # Of the best n the first is the least: that is the one a partition puts into its place.
            needed = self._needed(values.item(0) if len(values) >= n else 0.0, query)
            if needed <= end:
                break
            begin, end = end, min(needed, max(2 * end, 1024))
            block, block_values = self._best_of(self._scores(query, begin, end, excluded), n)
            best, values = np.concatenate((best, block + begin)), np.concatenate((values, block_values))
            if n < len(values):
                kept, values = self._best_of(values, n)
                best = best.take(kept)
        return self._sorted(best, values, query)

    @staticmethod
    def _best_of(
        scores: npt.NDArray[np.float32], n: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Places of the best n and their scores: the least first, the rest in no order; all where there are fewer."""
        size = len(scores)
        if n >= size:
            return np.arange(size), scores
        best = scores.argpartition(size - n)[size - n :]
        return best, scores.take(best)

    def search_among(
        self, query: npt.NDArray[np.float32], n: int, positions: Positions
    ) -> tuple[Positions, npt.NDArray[np.float32]]:
        """Best `n` of the given positions only: for narrow filters."""
        scores = self.vectors[positions] @ query
        if self._half_squares is not None:
            scores -= self._half_squares[positions]
        count = len(scores)
        best: Positions = scores.argpartition(count - n)[count - n :] if n < count else np.arange(count)
        best, values = self._sorted(best, scores[best], query)
        return positions[best], values

    def scores_at(self, query: npt.NDArray[np.float32], positions: Positions) -> npt.NDArray[np.float32]:
        """float32 (len(positions),): scores as `search` gives them, of the given positions in their order."""
        scores: npt.NDArray[np.float32] = self.vectors[positions] @ query
        if self._half_squares is not None:
            scores = 2 * (scores - self._half_squares[positions]) - query @ query
        return scores

    def cosines(self, position: int) -> npt.NDArray[np.float32]:
        """float32 (n,): cosine of every vector with the one at `position`."""
        norms = self._norms
        cosines: npt.NDArray[np.float32] = (self.vectors @ self.vectors[position]) / (norms * norms[position])
        return cosines

    def cosines_between(self, some: Positions, others: Positions) -> npt.NDArray[np.float32]:
        """float32 (len(some), len(others)): cosines of every pair of vectors."""
        norms = self._norms
        cosines: npt.NDArray[np.float32] = self.vectors[some] @ self.vectors[others].T
        cosines /= norms[some][:, None] * norms[others]
        return cosines

    def _scores(
        self, query: npt.NDArray[np.float32], begin: int, end: int, excluded: Positions | None
    ) -> npt.NDArray[np.float32]:
        """float32 (end - begin,): scores of a block, -inf for the excluded (the bracket, in space l2)."""
        if excluded is None:
            scores: npt.NDArray[np.float32] = self.vectors[begin:end] @ query
            if self._half_squares is not None:
                scores -= self._half_squares[begin:end]
            return scores
        # A place before the block and one after it take what is excluded elsewhere: one call instead of three.
        size = end - begin
        around = np.empty(size + 2, np.float32)
        scores = around[1:-1]
        np.dot(self.vectors[begin:end], query, out=scores)
        if self._half_squares is not None:
            scores -= self._half_squares[begin:end]
        around.put(excluded - (begin - 1), -np.inf, "clip")
        return scores

    def _sorted(
        self, best: Positions, values: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
    ) -> tuple[Positions, npt.NDArray[np.float32]]:
        order = (-values).argsort(kind="stable")
        best, values = best[order], values[order]
        if len(values) and values[-1] == -np.inf:
            kept = int((values != -np.inf).sum())
            best, values = best[:kept], values[:kept]
        if self._half_squares is not None:
            values = 2 * values - query @ query
        return best, values
