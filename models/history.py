"""Each user's items in the order they were read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset


def latest_events(dataset: Dataset) -> Dataset:
    """Keep each (user, item) pair's last event; by user, oldest first.

    Events of equal time keep the order of the file, as all do in data without times.
    """
    ordered = dataset.in_time_order()
    pairs = ordered.user_rows.astype(np.int64) * dataset.n_items + ordered.item_rows
    _, from_end = np.unique(pairs[::-1], return_index=True)
    return ordered.select(np.sort(len(pairs) - 1 - from_end))


def unique_history(dataset: Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """CSR by user: indptr int64 (n_users + 1,), item rows int32 (nnz,), unique, oldest first.

    A repeated item stands where it was read last. The same order is stored in a bundle, so what is counted
    from its end here is so in serving.
    """
    latest = latest_events(dataset)
    counts = np.bincount(latest.user_rows, minlength=dataset.n_users)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), latest.item_rows


def ages_from_end(indptr: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 (nnz,): how many of the user's items came after each; 0 the newest."""
    return np.repeat(indptr[1:], np.diff(indptr)) - 1 - np.arange(int(indptr[-1]))
