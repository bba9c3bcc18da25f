"""Fold-in: the vector of a user who has a history but no trained vector, solved from fixed item vectors.

Implicit ALS (Hu, Koren, Volinsky, ICDM 2008, section 4): with confidences c_i over the items i of the history,
x = (YtY + reg I + sum_i (c_i - 1) y_i y_i^T)^-1 sum_i c_i y_i. Item weights are 1, so c_i = alpha.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


class AlsFoldIn:
    """item_vectors: float32 (n, dim). gram: float32 (dim, dim), Y^T Y over all items' vectors."""

    def __init__(
        self,
        item_vectors: npt.NDArray[np.float32],
        gram: npt.NDArray[np.float32],
        *,
        regularization: float,
        alpha: float,
    ) -> None:
        self._vectors, self._alpha = item_vectors, alpha
        self._base = gram.astype(np.float64) + regularization * np.eye(len(gram))

    def solve(self, positions: npt.NDArray[np.integer]) -> Vector:
        """Vector of a user whose history stands at these positions of `item_vectors`; float32 (dim,)."""
        history = self._vectors[positions].astype(np.float64)
        left = self._base + (self._alpha - 1.0) * (history.T @ history)
        right = self._alpha * history.sum(axis=0)
        solved: Vector = np.linalg.solve(left, right).astype(np.float32)
        return solved


def mean_vector(
    item_vectors: npt.NDArray[np.float32], positions: npt.NDArray[np.integer], *, unit: bool
) -> Vector:
    """Mean of the history's vectors (to unit norm in a cosine space): for imported item vectors without a solver."""
    vector: Vector = item_vectors[positions].mean(axis=0)
    norm = float(np.sqrt(vector @ vector))
    return vector / np.float32(norm) if unit and norm > 0 else vector
