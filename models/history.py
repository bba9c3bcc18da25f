"""Each user's items in the order they were read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset


def unique_history(dataset: Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """CSR by user: indptr int64 (n_users + 1,), item rows int32 (nnz,), unique, oldest first.

    A repeated item stands where it was read last; events of equal time keep the order of the file, as all
    do in data without times. The same order is stored in a bundle, so what is counted from its end here is
    so in serving.
    """
    ordered = dataset.in_time_order()
    pairs = ordered.user_rows.astype(np.int64) * dataset.n_items + ordered.item_rows
    _, from_end = np.unique(pairs[::-1], return_index=True)
    last = np.sort(len(pairs) - 1 - from_end)
    counts = np.bincount(ordered.user_rows[last], minlength=dataset.n_users)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return indptr, ordered.item_rows[last]


def ages_from_end(indptr: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 (nnz,): how many of the user's items came after each; 0 the newest."""
    return np.repeat(indptr[1:], np.diff(indptr)) - 1 - np.arange(int(indptr[-1]))
