"""Sums of regression trees over a whole pool: the arrays of a bundle, made ready for the compiled walk."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service import native
from service.bundle.two_stage import TreeArrays

Floats = npt.NDArray[np.float32]


class Forest:
    """Trees made ready to run (`service/native/forest.c` says how). Immutable; threads and forked workers share it."""

    def __init__(self, trees: TreeArrays) -> None:
        self.n_trees = len(trees)
        self._forest = native.Forest(
            trees.indptr, trees.feature, trees.threshold, trees.nan_right, trees.left, trees.right, trees.value,
            trees.bias,
        )  # fmt: skip

    @property
    def n_questions(self) -> int:
        """How many different comparisons the trees make."""
        return self._forest.n_questions

    def scores(self, features: Floats) -> npt.NDArray[np.float64]:
        """float64 (n,): each row's sum over the trees. features: float32 (n, n_features), NaN where unknown.

        Fastest where a feature's values stand side by side (Fortran order).
        """
        return self._forest.scores(np.ascontiguousarray(features.T))
