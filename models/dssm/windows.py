"""Batches of histories and what came next, cut as windows so that an item looked up once serves many examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.dssm.config import Config

WIDEST = 32
"""Examples of one user in one window, at most."""


@dataclass(frozen=True, slots=True)
class Histories:
    """CSR of users' items, oldest first: indptr int64 (n_users + 1,), items int32. ordered: whether order means."""

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    ordered: bool

    def lengths(self) -> npt.NDArray[np.int64]:
        """Items of each user."""
        return np.diff(self.indptr)

    def of(self, users: npt.NDArray[np.int64]) -> Histories:
        """Histories of some users, in their order."""
        lengths = self.lengths()[users]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[users] - indptr[:-1], lengths)
        return Histories(indptr, self.items[places], self.ordered)

    def latest(self, users: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """Latest items of some users: int64 (m, length), oldest first, item rows plus one, 0 before the first."""
        places = np.arange(-length, 0) + self.indptr[users + 1][:, None]
        inside = places >= self.indptr[users][:, None]
        return np.where(inside, self.items[np.where(inside, places, 0)].astype(np.int64) + 1, 0)

    def shuffled(self, generator: np.random.Generator) -> npt.NDArray[np.int32]:
        """Items, each user's among themselves in random order."""
        owners = np.repeat(np.arange(len(self.indptr) - 1), self.lengths())
        return self.items[np.lexsort((generator.random(len(owners)), owners))]


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of k users, each with c examples. An example's history is what lies before its place in the window.

    users: int64 (k,). window: int64 (k, length + c), item rows plus one, 0 where there is nothing; example j stands
    at place length + j. targets: int64 (k, c), the item row to be told, -1 where there is no example.
    """

    users: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


class Windows:
    """All batches of one epoch, drawn by its generator; each event is the next item of one example."""

    def __init__(self, histories: Histories, config: Config, generator: np.random.Generator) -> None:
        self._histories, self._config, self._generator = histories, config, generator
        lengths = histories.lengths()
        active = np.flatnonzero(lengths)
        mean = float(lengths[active].mean()) if len(active) else 1.0
        self._width = int(np.clip(round(mean / 2), 1, WIDEST))
        self._per_batch = max(1, config.batch // self._width)
        self._items = histories.items if histories.ordered else histories.shuffled(generator)
        # Windows begin anywhere, or an example's neighbours would be the same in every epoch.
        shifts = generator.integers(0, self._width, len(active))
        counts = -(-(lengths[active] + shifts) // self._width)
        self._users = np.repeat(active, counts)
        numbers = np.arange(len(self._users)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._starts = numbers * self._width - np.repeat(shifts, counts)
        self._order = generator.permutation(len(self._users))

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._per_batch)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._order), self._per_batch):
            yield self._batch(self._order[start : start + self._per_batch])

    def _batch(self, chosen: npt.NDArray[np.int64]) -> Batch:
        users, starts = self._users[chosen], self._starts[chosen]
        begins = self._histories.indptr[users][:, None]
        lengths = self._histories.lengths()[users][:, None]
        places = starts[:, None] + np.arange(-self._config.history_length, self._width)
        window = self._at(begins, lengths, places) + 1
        own = places[:, self._config.history_length :]
        ahead = self._generator.integers(0, self._config.horizon, own.shape)
        targets = self._at(begins, lengths, np.minimum(own + ahead, lengths - 1))
        return Batch(users, window, np.where((own >= 0) & (own < lengths), targets, -1))

    def _at(
        self, begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Item rows at places of their users' histories; -1 outside."""
        inside = (places >= 0) & (places < lengths)
        return np.where(inside, self._items[np.where(inside, begins + places, 0)], -1)
