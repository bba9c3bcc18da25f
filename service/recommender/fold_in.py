"""Fold-in: the vector of a user who has a history but no trained vector, solved from fixed item vectors.

Implicit ALS (Hu, Koren, Volinsky, ICDM 2008, section 4): with confidences c_i over the items i of the history,
x = (YtY + reg I + sum_i (c_i - 1) y_i y_i^T)^-1 sum_i c_i y_i. c_i = alpha, or, where training weighed pairs by
recency, alpha for the newest item and half for every `half_life` items after it, at least LEAST of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.recommender.recency import fading

Vector = npt.NDArray[np.float32]
LEAST = 2.0**-10


class AlsFoldIn:
    """item_vectors: float32 (n, dim). gram: float32 (dim, dim), Y^T Y over all items' vectors."""

    def __init__(
        self,
        item_vectors: npt.NDArray[np.float32],
        gram: npt.NDArray[np.float32],
        *,
        regularization: float,
        alpha: float,
        half_life: float | None = None,
    ) -> None:
        self._vectors, self._alpha, self._half_life = item_vectors, alpha, half_life
        self._base = gram.astype(np.float64) + regularization * np.eye(len(gram))

    def solve(self, positions: npt.NDArray[np.integer]) -> Vector:
        """Vector of a user whose history, oldest first, stands at these positions of `item_vectors`; float32 (dim,)."""
        # Sums over the history in the vectors' own float32; only the system itself needs more to be solved well.
        history = self._vectors[positions]
        if self._half_life is None:
            left = self._base + np.float32(self._alpha - 1.0) * (history.T @ history)
            right = self._alpha * history.sum(axis=0, dtype=np.float64)
        else:
            confidences = self._alpha * fading(len(history), self._half_life, least=LEAST)
            left = self._base + (history.T * (confidences - 1.0).astype(np.float32)) @ history
            right = confidences.astype(np.float32) @ history
        solved: Vector = np.linalg.solve(left, right).astype(np.float32)
        return solved

    def parts(
        self, positions: npt.NDArray[np.integer], target: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """What each item of a history adds to the score of an item with this vector: float64 (n,).

        The score y^T x is linear in the history, so it is their sum: c_i y^T A^-1 y_i each (section 5 of the paper).
        """
        history = self._vectors[positions].astype(np.float64)
        if self._half_life is None:
            confidences = np.full(len(history), self._alpha)
        else:
            confidences = self._alpha * fading(len(history), self._half_life, least=LEAST)
        left = self._base + (history.T * (confidences - 1.0)) @ history
        found: npt.NDArray[np.float64] = confidences * (
            history @ np.linalg.solve(left, target.astype(np.float64))
        )
        return found


def mean_vector(
    item_vectors: npt.NDArray[np.float32], positions: npt.NDArray[np.integer], *, unit: bool
) -> Vector:
    """Mean of the history's vectors (to unit norm in a cosine space): for imported item vectors without a solver."""
    vector: Vector = item_vectors[positions].mean(axis=0)
    norm = float(np.sqrt(vector @ vector))
    return vector / np.float32(norm) if unit and norm > 0 else vector
