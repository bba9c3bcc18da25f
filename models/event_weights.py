"""How much an event counts: as given, once a pair, and less the older it is."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset

EventWeights = Literal["binary", "given", "log"]
"""binary: 1 a pair. given: a pair's summed weight. log: log(1 + it)."""

MS_PER_DAY = 86_400_000


def ages(dataset: Dataset) -> npt.NDArray[np.float64]:
    """float64 (n,): how old each event is; 0 the newest.

    Timestamps: days before the data's last event. Positions: events before the user's own last one.
    """
    if dataset.times is None:
        return np.zeros(len(dataset), np.float64)
    if dataset.time_kind == "timestamp":
        return (dataset.times.max(initial=0) - dataset.times) / MS_PER_DAY
    last = np.zeros(dataset.n_users, np.int64)
    np.maximum.at(last, dataset.user_rows, dataset.times)
    return (last[dataset.user_rows] - dataset.times).astype(np.float64)


def pair_matrix(dataset: Dataset, weights: EventWeights, half_life: float | None = None) -> sp.csr_matrix:
    """float32 (n_users, n_items): each pair's weight, then halved for every `half_life` of its newest event's age.

    `half_life` is in the unit of `ages`. A weight never falls below 2^-10 of itself: old events still happened.
    """
    matrix = dataset.matrix(binary=weights == "binary")
    if weights == "log":
        matrix.data = np.log1p(matrix.data)
    if half_life is None or dataset.times is None or not len(dataset):
        return matrix
    decay = np.exp2(-np.minimum(ages(dataset) / half_life, 10.0)).astype(np.float32)
    # A pair's newest event is its largest decay; sorting ascending lets the last write win.
    order = np.argsort(decay, kind="stable")
    keys = dataset.user_rows[order].astype(np.int64) * dataset.n_items + dataset.item_rows[order]
    reverse_unique, first = np.unique(keys[::-1], return_index=True)
    newest = decay[order][::-1][first]
    matrix.sort_indices()
    # Canonical CSR holds the pairs in ascending (user, item) order, as the unique keys are.
    assert len(reverse_unique) == matrix.nnz  # noqa: S101
    matrix.data = matrix.data * newest
    return matrix
