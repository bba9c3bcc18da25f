"""Which features a row's sum over the trees comes from.

On the way from a root to a leaf each node changes what is expected of the tree; the change is credited to the feature
that the node above asks of (path attribution, as Saabas' treeinterpreter does it). Bundles don't hold how many rows of
the training reached a node, so what a node expects is the plain mean of what its two children expect, not the mean of
the training's rows, and `base` is not their mean score either. The credits depend on the order in which a path asks:
they are not Shapley values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.bundle.two_stage import TreeArrays

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureContribution:
    """A feature, its part of the score, and its value; None where nothing is known."""

    feature: str
    contribution: float
    value: float | None


@dataclass(frozen=True, slots=True)
class RankerScore:
    """A ranker's score of an item: `base` and all contributions, the largest in size first, add up to it."""

    model: str
    score: float
    base: float
    contributions: tuple[FeatureContribution, ...]


def attributed(trees: TreeArrays, row: Floats) -> tuple[npt.NDArray[np.float64], float]:
    """Credit each feature: float64 (n_features,), and the base. row: float32 (n_features,), NaN where unknown."""
    first = np.repeat(trees.indptr[:-1], np.diff(trees.indptr))
    expected, left, right = _expected(trees, first), first + trees.left, first + trees.right
    at = trees.indptr[:-1].astype(np.intp)
    base = float(expected[at].sum()) + trees.bias
    parts = np.zeros(len(row))
    while len(at := at[trees.feature[at] >= 0]):
        asked = trees.feature[at]
        values = row[asked]
        goes_right = np.where(np.isnan(values), trees.nan_right[at] > 0, values > trees.threshold[at])
        below = np.where(goes_right, right[at], left[at])
        parts += np.bincount(asked, expected[below] - expected[at], minlength=len(row))
        at = below
    return parts, base


def _expected(trees: TreeArrays, first: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64 (n_nodes,): a leaf's value; of an inner node the mean of its two children's. first: each node's root."""
    expected = trees.value.astype(np.float64)
    levels = [trees.indptr[:-1]]
    while len(inner := levels[-1][trees.feature[levels[-1]] >= 0]):
        levels[-1] = inner
        levels.append(np.concatenate((first[inner] + trees.left[inner], first[inner] + trees.right[inner])))
    for inner in levels[-2::-1]:
        children = first[inner] + trees.left[inner], first[inner] + trees.right[inner]
        expected[inner] = (expected[children[0]] + expected[children[1]]) / 2
    return expected
