"""How much a user-item pair counts: as given or once, and less the more the user has read since."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.data.windows import MS_PER_DAY
from models.history import ages_from_end, latest_events, unique_history
from service.errors import InputError

EventWeights = Literal["binary", "given", "log", "rating", "recent"]
"""binary: 1 a pair. given: a pair's summed weight. log: log(1 + it). rating: a pair's last rating, counted from 1 for
the lowest there is (as the mean of all where it has none). recent: 1 / (1 + the whole days from a pair's last event
to the data's). Data without ratings, or without timestamps, takes these two as binary."""

LEAST_DECAY = 2.0**-10
"""Old events still happened: recency never takes more than this off."""


def decay_of(ages: npt.NDArray[np.int64], half_life: float) -> npt.NDArray[np.float64]:
    """float64, the shape of `ages`: 2^(-age / half_life), at least LEAST_DECAY."""
    decay: npt.NDArray[np.float64] = np.maximum(np.exp2(-ages / half_life), LEAST_DECAY)
    return decay


def recency_of(dataset: Dataset, history_half_life: float | None) -> dict[str, float]:
    """Say how fast the items of a history fade, as serving reads it; empty where they have no order."""
    if history_half_life is None or dataset.times is None:
        return {}
    if not history_half_life > 0:
        raise InputError(f"history_half_life must be above 0, got {history_half_life}")
    return {"history_half_life": float(history_half_life)}


def pair_matrix(dataset: Dataset, weights: EventWeights, half_life: float | None = None) -> sp.csr_matrix:
    """Weigh pairs: float32 (n_users, n_items), halved for every `half_life` items that the user read since.

    Data without times has no order: there `half_life` does nothing.
    """
    matrix = dataset.matrix(binary=weights not in {"given", "log"})
    if weights == "log":
        matrix.data = np.log1p(matrix.data)
    if weights == "recent" and dataset.times is not None and dataset.time_kind == "timestamp":
        matrix = _recent(dataset)
    if weights == "rating" and dataset.ratings is not None:
        matrix = _rated(dataset)
    if half_life is None or dataset.times is None:
        return matrix
    if not half_life > 0:
        raise InputError(f"half_life must be above 0, got {half_life}")
    indptr, items = unique_history(dataset)
    decay = sp.csr_matrix((decay_of(ages_from_end(indptr), half_life), items, indptr), shape=matrix.shape)
    return matrix.multiply(decay).tocsr().astype(np.float32)


def _recent(dataset: Dataset) -> sp.csr_matrix:
    latest = latest_events(dataset)
    assert latest.times is not None  # the caller looked
    days = (latest.times.max(initial=0) - latest.times) // MS_PER_DAY
    return _of_pairs(latest, 1.0 / (1.0 + days))


def _rated(dataset: Dataset) -> sp.csr_matrix:
    latest = latest_events(dataset)
    assert latest.ratings is not None  # the caller looked
    known = np.isfinite(latest.ratings)
    if not known.any():
        return dataset.matrix(binary=True)
    above = latest.ratings.astype(np.float64) - latest.ratings[known].min() + 1.0
    return _of_pairs(latest, np.where(known, above, above[known].mean()))


def _of_pairs(latest: Dataset, values: npt.NDArray[np.float64]) -> sp.csr_matrix:
    shape = (latest.n_users, latest.n_items)
    return sp.csr_matrix((values.astype(np.float32), (latest.user_rows, latest.item_rows)), shape=shape)
