"""Metrics as handbooks state them, for one list or one series: graded relevance and rating error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Gain = Literal["exponential", "linear"]
"""`exponential`: 2^r - 1 (Burges et al. 2005); `linear`: r (Järvelin & Kekäläinen 2002)."""


def dcg(grades: npt.ArrayLike, *, gain: Gain = "exponential", k: int | None = None) -> float:
    """Discounted cumulative gain of grades in list order: sum of gain(r_i) / log2(i + 1), i from 1."""
    listed = np.asarray(grades, np.float64)[:k]
    gains = np.exp2(listed) - 1.0 if gain == "exponential" else listed
    return float((gains / np.log2(np.arange(2, len(listed) + 2))).sum())


def ndcg(
    grades: npt.ArrayLike,
    *,
    gain: Gain = "exponential",
    k: int | None = None,
    ideal: npt.ArrayLike | None = None,
) -> float:
    """DCG over that of the best order. `ideal`: the grades to order, when relevant items were not listed."""
    best = np.sort(np.asarray(grades if ideal is None else ideal, np.float64))[::-1]
    perfect = dcg(best, gain=gain, k=k)
    return dcg(grades, gain=gain, k=k) / perfect if perfect else 0.0


def average_precision(flags: npt.ArrayLike, *, k: int | None = None) -> float:
    """Mean of precision at each relevant place of a 0/1 list; 0 when nothing is relevant."""
    hit = np.asarray(flags, bool)[:k]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float(precision[hit].mean()) if hit.any() else 0.0


def mean_reciprocal_rank(first_ranks: Sequence[int | None]) -> float:
    """Mean of 1 / rank of each list's first relevant item, ranks from 1; None: there was none, counts 0."""
    return float(np.mean([0.0 if rank is None else 1.0 / rank for rank in first_ranks]))


def mean_absolute_error(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """MAE, in the ratings' unit."""
    return float(np.abs(_difference(actual, predicted)).mean())


def mean_squared_error(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """MSE, in the ratings' unit squared."""
    return float(np.square(_difference(actual, predicted)).mean())


def _difference(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> npt.NDArray[np.float64]:
    left, right = np.asarray(actual, np.float64), np.asarray(predicted, np.float64)
    if left.shape != right.shape or not left.size:
        raise ValueError(f"two series of one length, not {left.shape} and {right.shape}")
    return left - right
