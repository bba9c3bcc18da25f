"""A data set as every offline stage sees it: ids, events in rows of those ids, feature tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from service.bundle.ids import Ids

TimeKind = Literal["timestamp", "position"]
"""`timestamp`: comparable over users, ms since 1970 UTC. `position`: a place in the user's own order."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Events in the order they were read. All four event arrays have one entry an event.

    user_rows, item_rows: int32 (n,), rows of `user_ids` / `item_ids`. weights: float32 (n,), > 0, 1.0 where
    the data has none. times: int64 (n,) in the unit that `time_kind` says, or None where the data has no
    order. `users` and `items`: feature tables with one row an id, in the order of the ids, nulls where
    unknown, without the id column; None where the data has none. A column is Utf8 (one category), List(Utf8)
    (several) or numeric. `dropped` counts the rows that reading left out, by reason. `ratings`: float32 (n,),
    what users said of items, None where the data has no ratings; a rating is never a weight by itself.
    `signals`: other measures of an event by name, each float32 (n,), NaN where unknown (KION: `total_dur` in
    seconds, `watched_pct` in 0..100).
    """

    name: str
    user_ids: Ids
    item_ids: Ids
    user_rows: npt.NDArray[np.int32]
    item_rows: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    times: npt.NDArray[np.int64] | None
    time_kind: TimeKind | None
    users: pl.DataFrame | None = None
    items: pl.DataFrame | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    """sha256 of the input files' bytes, in name order; of the recipe where the data was generated."""
    ratings: npt.NDArray[np.float32] | None = None
    signals: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user_rows)

    @property
    def n_users(self) -> int:
        """Users known by id, with or without events."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items known by id, with or without events."""
        return len(self.item_ids)

    def select(self, keep: npt.NDArray[Any]) -> Dataset:
        """Keep some events (boolean mask or row numbers). Ids and their rows stay as they are."""
        return replace(
            self,
            user_rows=self.user_rows[keep],
            item_rows=self.item_rows[keep],
            weights=self.weights[keep],
            times=None if self.times is None else self.times[keep],
            ratings=None if self.ratings is None else self.ratings[keep],
            signals={name: values[keep] for name, values in self.signals.items()},
        )

    def in_time_order(self) -> Dataset:
        """Sort events by (user, time), file order among equals; by user alone where there is no time."""
        keys = (self.user_rows,) if self.times is None else (self.times, self.user_rows)
        return self.select(np.lexsort(keys))

    def matrix(self, *, binary: bool = False) -> sp.csr_matrix:
        """float32 (n_users, n_items): summed weights of each pair, or 1 where there was any event."""
        values = np.ones(len(self), np.float32) if binary else self.weights
        matrix = sp.csr_matrix((values, (self.user_rows, self.item_rows)), shape=(self.n_users, self.n_items))
        matrix.sum_duplicates()
        if binary:
            matrix.data[:] = 1.0
        return matrix
