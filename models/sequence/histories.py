"""Histories as training reads them: windows of consecutive items, batched by length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset
from models.history import unique_history

NO_TARGET = -1
"""Where a row of targets has nothing to predict."""
_SPREAD = 8
"""Windows whose lengths differ by up to so many may share a batch: it costs little padding and mixes batches."""


@dataclass(frozen=True, slots=True)
class Histories:
    """Users' items, unique, oldest first, as positions among the items that have events.

    user_rows int32 (m,): users with events, ascending. indptr int64 (m + 1,), items int32: their items, as
    positions in `item_rows`, int32 (n,) ascending.
    """

    user_rows: npt.NDArray[np.int32]
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    item_rows: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.user_rows)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Items of each user, int64 (m,)."""
        return np.diff(self.indptr)

    def of(self, user: int) -> npt.NDArray[np.int32]:
        """One user's items, by place in `user_rows`."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def without_last(self, users: npt.NDArray[np.int64]) -> Histories:
        """Take the last item of some users away."""
        keep = np.ones(len(self.items), bool)
        keep[self.indptr[users + 1] - 1] = False
        lengths = self.lengths
        lengths[users] -= 1
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Histories(self.user_rows, indptr, self.items[keep], self.item_rows)


def histories_of(dataset: Dataset) -> Histories:
    """Read each user's unique items in the order that the bundle stores and serving counts from the end of."""
    indptr, rows = unique_history(dataset)
    item_rows = np.unique(rows).astype(np.int32)
    lengths = np.diff(indptr)
    users = np.flatnonzero(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths[users])]).astype(np.int64)
    return Histories(
        users.astype(np.int32), starts, np.searchsorted(item_rows, rows).astype(np.int32), item_rows
    )


def examined_users(histories: Histories, most: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw the users whose last item is held out: at most `most`, a third of those with three items or more."""
    able = np.flatnonzero(histories.lengths >= 3)
    count = min(most, len(able) // 3)
    return np.sort(np.random.default_rng(seed).choice(able, count, replace=False)).astype(np.int64)


Tokens = npt.NDArray[np.int64]
Batch = tuple[Tokens, Tokens]
"""What is read, int64 (b, n), tokens; what comes next, int64 (b, n), positions of items, NO_TARGET for padding."""


@dataclass(frozen=True, slots=True)
class Batches:
    """One epoch's batches: every item of every history is the target once.

    A history longer than the window is cut at a place drawn anew each epoch, so that what an item may look back on
    varies. A window that opens a history begins with the token 0, from which its first item is predicted.
    """

    histories: Histories
    windows: npt.NDArray[np.int64]
    """int64 (w, 2): where a window's targets begin and end among the events."""
    groups: list[npt.NDArray[np.int64]]
    """Windows of a batch."""

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Batch]:
        for group in self.groups:
            yield self._batch(self.windows[group])

    def _batch(self, windows: npt.NDArray[np.int64]) -> Batch:
        lengths = windows[:, 1] - windows[:, 0]
        places = np.arange(lengths.max())
        there = places < lengths[:, None]
        at = np.where(there, windows[:, :1] + places, 0)
        targets = np.where(there, self.histories.items[at].astype(np.int64), NO_TARGET)
        opens = np.isin(windows[:, 0], self.histories.indptr)
        read = np.zeros_like(targets)
        read[:, 1:] = np.where(there[:, 1:], targets[:, :-1] + 1, 0)
        read[~opens, 0] = self.histories.items[windows[~opens, 0] - 1] + 1
        return read, targets


def draw_batches(
    histories: Histories, generator: np.random.Generator, *, length: int, tokens: int
) -> Batches:
    """Cut histories into windows of at most `length` and batch those of like length, about `tokens` places each."""
    windows = _windows(histories, generator, length)
    lengths = windows[:, 1] - windows[:, 0]
    order = np.lexsort(
        (generator.random(len(windows)), lengths + generator.integers(0, _SPREAD, len(windows)))
    )
    groups, current, longest = [], 0, 0
    ordered = lengths[order].tolist()
    for place, own in enumerate(ordered):
        widened = max(longest, own)
        if place > current and widened * (place + 1 - current) > tokens:
            groups.append(order[current:place])
            current, widened = place, own
        longest = widened
    groups.append(order[current:])
    generator.shuffle(groups)  # type: ignore[arg-type]  # a list of arrays, which numpy's stubs leave out
    return Batches(histories, windows, groups)


def _windows(histories: Histories, generator: np.random.Generator, length: int) -> npt.NDArray[np.int64]:
    """int64 (w, 2): each history cut into pieces of `length`, the first of them shorter as drawn."""
    firsts = generator.integers(1, length + 1, len(histories))
    sizes = histories.lengths
    firsts = np.where(sizes <= length, sizes, firsts)
    pieces = 1 + -(-(sizes - firsts) // length)
    owner = np.repeat(np.arange(len(histories)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = np.where(number == 0, 0, firsts[owner] + (number - 1) * length)
    ends = np.minimum(firsts[owner] + number * length, sizes[owner])
    windows = np.stack([begins, ends], axis=1) + histories.indptr[owner][:, None]
    return windows[windows[:, 1] > windows[:, 0]]
