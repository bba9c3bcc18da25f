"""Each user's items in the order they were read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset

_BLOCK_EVENTS = 1 << 20
"""Looked at together: what sorts in the processor's caches."""


def latest_events(dataset: Dataset) -> Dataset:
    """Keep each (user, item) pair's last event; by user, oldest first.

    Events of equal time keep the order of the file, as all do in data without times.
    """
    ordered = dataset if _is_in_time_order(dataset) else dataset.in_time_order()
    users, latest = ordered.user_rows, np.ones(len(ordered), np.bool_)
    first = 0
    while first < len(users):
        end = int(np.searchsorted(users, users[min(first + _BLOCK_EVENTS, len(users)) - 1], side="right"))
        pairs = users[first:end].astype(np.int64) * ordered.n_items + ordered.item_rows[first:end]
        alike = np.argsort(pairs, kind="stable")
        earlier = alike[:-1][pairs[alike[1:]] == pairs[alike[:-1]]]
        latest[first + earlier] = False
        first = end
    return ordered if latest.all() else ordered.select(latest)


def _is_in_time_order(dataset: Dataset) -> bool:
    """Whether the events stand as `in_time_order` would put them."""
    users, times = dataset.user_rows, dataset.times
    if not (users[1:] >= users[:-1]).all():
        return False
    return times is None or bool(((times[1:] >= times[:-1]) | (users[1:] > users[:-1])).all())


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
