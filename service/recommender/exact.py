"""Exact maximum-inner-product search that reads only the vectors that can still win.

Items stand in order of falling norm. By Cauchy-Schwarz no item scores above |q| * |v|, so once the k-th best score
found so far exceeds |q| times the next norm, the rest can't enter (the bound of LEMP, Teflioudi et al., SIGMOD 2015,
section 3). On vectors whose norms fall off, as trained ALS items' do, that stops early; on equal norms it reads all.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from service.domain import Space

Positions = npt.NDArray[np.integer]
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
        self._negative_norms = -np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        self._bounded = space == "ip"

    def tune(self, queries: npt.NDArray[np.float32], n: int) -> float:
        """Set the first block to what the median query needs; returns mean vectors read for these queries."""
        if not self._bounded or len(queries) == 0:
            return float(self.size)
        needed = []
        for query in queries:
            _, scores = self.search(query, min(n, self.size), None)
            needed.append(self._needed(float(scores[-1]), math.sqrt(float(query @ query))))
        self.first_block = max(min(int(np.median(needed)), self.size), min(self.size, 4 * n))
        return float(np.mean(np.maximum(needed, self.first_block)))

    def _needed(self, threshold: float, query_norm: float) -> int:
        """How many leading positions may hold a score above `threshold`."""
        if threshold <= 0.0 or query_norm == 0.0:
            return self.size
        return int(self._negative_norms.searchsorted(-threshold / (query_norm * _SLACK), side="right"))

    def search(
        self, query: npt.NDArray[np.float32], n: int, excluded: Positions | None
    ) -> tuple[Positions, npt.NDArray[np.float32]]:
        """Best `n` positions not in `excluded`, best first, with their scores (fewer if fewer are left).

        Scores are inner products, or -|q - v|^2 in space l2.
        """
        size, end = self.size, min(self.first_block, self.size)
        scores = self._scores(query, 0, end)
        if excluded is not None and len(excluded):
            scores[excluded if end == size else excluded[excluded < end]] = -np.inf
        if end < size:
            query_norm = math.sqrt(float(query @ query))
            while end < size:
                threshold = float(np.partition(scores, end - n)[end - n]) if end >= n else -math.inf
                needed = self._needed(threshold, query_norm)
                if needed <= end:
                    break
                begin, end = end, min(needed, max(2 * end, 1024))
                block = self._scores(query, begin, end)
                if excluded is not None and len(excluded):
                    block[excluded[(excluded >= begin) & (excluded < end)] - begin] = -np.inf
                scores = np.concatenate((scores, block))
        return self._top(scores, n, query)

    def search_among(
        self, query: npt.NDArray[np.float32], n: int, positions: Positions
    ) -> tuple[Positions, npt.NDArray[np.float32]]:
        """Best `n` of the given positions only: for narrow filters."""
        scores = self.vectors[positions] @ query
        if self._half_squares is not None:
            scores -= self._half_squares[positions]
        best, values = self._top(scores, n, query)
        return positions[best], values

    def _scores(self, query: npt.NDArray[np.float32], begin: int, end: int) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = self.vectors[begin:end] @ query
        if self._half_squares is not None:
            scores -= self._half_squares[begin:end]
        return scores

    def _top(
        self, scores: npt.NDArray[np.float32], n: int, query: npt.NDArray[np.float32]
    ) -> tuple[Positions, npt.NDArray[np.float32]]:
        count = len(scores)
        best = scores.argpartition(count - n)[count - n :] if n < count else np.arange(count)
        values = scores[best]
        order = (-values).argsort(kind="stable")
        best, values = best[order], values[order]
        if len(values) and values[-1] == -np.inf:
            kept = int((values != -np.inf).sum())
            best, values = best[:kept], values[:kept]
        if self._half_squares is not None:
            values = 2 * values - query @ query
        return best, values
