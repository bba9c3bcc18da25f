"""Histories in a store outside the process's memory that may be late, away or full.

What the store does not take at once is kept here, bounded, until it does: so this process's own answers know of
every event that it acknowledged, and a short outage loses none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Protocol

from service.domain import Deadline, ItemId, UserId
from service.state.history import ByUser, Interaction, Items, Recent, by_user, joined
from service.state.metrics import HistoryCounts, Trouble

MOST_UNSAVED = 50_000
"""Items that may wait for the store."""
_USERS_AT_ONCE = 64
_RETRY_S = 0.25
_ID_TYPES = frozenset({int, str})  # a bool is neither, by its type


class StoreTrouble(Exception):
    """A store that could not do what it was asked; a save may or may not have been done."""

    def __init__(self, reason: Trouble) -> None:
        super().__init__(reason)
        self.reason: Trouble = reason


class Store(Protocol):
    """Where histories are."""

    async def start(self) -> None:
        """Begin."""

    async def read(self, user_ids: Sequence[UserId], deadline: Deadline) -> list[Items | None]:
        """Histories, oldest first, in the order of the users; None for one that is not in our format.

        Raises StoreTrouble.
        """

    async def save(self, histories: ByUser) -> None:
        """Append to histories; doing it twice changes nothing. Raises StoreTrouble."""

    async def close(self) -> None:
        """End."""


class Unsaved:
    """What the store has not taken yet, bounded; the user who has waited longest goes first."""

    __slots__ = ("_histories", "_length", "_most", "n_items")

    def __init__(self, length: int, most: int = MOST_UNSAVED) -> None:
        self._length, self._most = length, most
        self._histories: dict[UserId, Items] = {}
        self.n_items = 0

    def of(self, user_id: UserId) -> Items:
        """What waits for one user."""
        return self._histories.get(user_id, ())

    def add(self, histories: ByUser) -> int:
        """Keep more; returns how many items had to go for it."""
        for user_id, items in histories.items():
            older = self._histories.get(user_id, ())
            self._histories[user_id] = both = joined(older, items, self._length)
            self.n_items += len(both) - len(older)
        lost = 0
        while self.n_items > self._most:
            longest_waiting = next(iter(self._histories))
            gone = len(self._histories.pop(longest_waiting))
            self.n_items -= gone
            lost += gone
        return lost

    def first(self, users: int) -> dict[UserId, Items]:
        """Those who have waited longest."""
        return dict(itertools.islice(self._histories.items(), users))

    def taken(self, histories: ByUser) -> None:
        """Forget what was saved; a user to whom more came meanwhile is saved again."""
        for user_id, items in histories.items():
            if self._histories.get(user_id) is items:
                del self._histories[user_id]
                self.n_items -= len(items)


class StoredHistory:
    """Histories of a store, and over them what it has not taken yet."""

    def __init__(self, store: Store, counts: HistoryCounts, *, length: int) -> None:
        self._store, self._counts, self._length = store, counts, length
        self._unsaved = Unsaved(length)
        self._retrying: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Begin."""
        await self._store.start()
        self._retrying = asyncio.create_task(self._retry())

    async def recent(self, user_id: UserId, deadline: Deadline) -> Recent:
        """A user's history as the store tells it in time."""
        (recent,) = await self.recent_many((user_id,), deadline)
        return recent

    async def recent_many(self, user_ids: Sequence[UserId], deadline: Deadline) -> list[Recent]:
        """Histories of several users at one round trip's cost; of none at no cost."""
        if not user_ids:
            return []
        counts, unsaved = self._counts, self._unsaved
        try:
            found = await self._store.read(user_ids, deadline)
        except StoreTrouble as trouble:
            counts.troubles[trouble.reason] += len(user_ids)
            return [Recent(unsaved.of(user_id), degraded=True) for user_id in user_ids]
        recents: list[Recent] = []
        for user_id, items in zip(user_ids, found, strict=True):
            newer = unsaved.of(user_id) if unsaved.n_items else ()
            if items is None:
                counts.troubles["garbage"] += 1
                recents.append(Recent(newer, degraded=True))
                continue
            if items:
                counts.hits += 1
            else:
                counts.misses += 1
            recents.append(Recent(joined(items, newer, self._length) if newer else items))
        return recents

    async def append(self, events: Iterable[Interaction]) -> None:
        """Save events, or keep them for later."""
        histories = by_user(events, self._length)
        users = list(histories)
        for begin in range(0, len(users), _USERS_AT_ONCE):
            some = {user_id: histories[user_id] for user_id in users[begin : begin + _USERS_AT_ONCE]}
            count = sum(map(len, some.values()))
            # Kept before the store is asked, so that a caller who gives up loses nothing.
            self._counts.lost += self._unsaved.add(some)
            if not await self._save(self._only_new(some)):
                self._counts.deferred += count

    def waiting(self) -> ByUser:
        """What the store has not taken yet: a process that ends leaves it to its successor."""
        return self._unsaved.first(self._unsaved.n_items)

    def take_up(self, histories: ByUser) -> None:
        """Keep, until the store takes it, what a predecessor could not save. Taking it up twice changes nothing."""
        self._counts.lost += self._unsaved.add(histories)

    def _only_new(self, histories: ByUser) -> dict[UserId, Items]:
        return {user_id: items for user_id in histories if (items := self._unsaved.of(user_id))}

    async def _save(self, histories: ByUser) -> bool:
        try:
            await self._store.save(histories)
        except StoreTrouble:
            return False
        self._unsaved.taken(histories)
        self._counts.saved += sum(map(len, histories.values()))
        return True

    async def _save_waiting(self) -> None:
        """Save what waits until that is nothing, or the store will not."""
        while self._unsaved.n_items:
            if not await self._save(self._unsaved.first(_USERS_AT_ONCE)):
                return

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_S)
            await self._save_waiting()

    def flush_counts(self) -> None:
        """Hand what was counted to the metrics."""
        self._counts.unsaved = self._unsaved.n_items
        self._counts.flush()

    async def close(self) -> None:
        """Try once more to save what waits, then end."""
        if self._closed:
            return
        self._closed = True
        if self._retrying is not None:
            self._retrying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._retrying
        await self._save_waiting()
        await self._store.close()


def items_of(raw: object) -> Items | None:
    """Check that a decoded value is a list of ids; None if it is not."""
    if type(raw) is not list or not _ID_TYPES.issuperset(map(type, raw)):
        return None
    items: tuple[ItemId, ...] = tuple(raw)
    return items
