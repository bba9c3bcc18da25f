"""Histories in this process's memory: gone with it, and unknown to any other."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from service.domain import Clock, Deadline, UserId
from service.state.history import NOTHING, Interaction, Recent, by_user, joined
from service.state.metrics import HistoryCounts


class MemoryHistory:
    """At most `users` histories; the one least recently read or appended to goes first."""

    def __init__(
        self,
        counts: HistoryCounts,
        *,
        length: int,
        ttl_s: float,
        users: int,
        clock: Clock = time.monotonic,
    ) -> None:
        self._counts, self._clock = counts, clock
        self._length, self._ttl_s, self._most = length, ttl_s, users
        self._users: OrderedDict[UserId, tuple[float, Recent]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._users)

    async def start(self) -> None:
        """There is nothing to begin."""

    async def recent(self, user_id: UserId, deadline: Deadline) -> Recent:  # noqa: ARG002 (the Protocol's)
        """A user's history; never suspends."""
        return self.known_now(user_id)

    def known_now(self, user_id: UserId) -> Recent:
        """A user's history, by a plain call."""
        found = self._users.get(user_id)
        if found is not None:
            appended_at, recent = found
            if self._clock() - appended_at < self._ttl_s:
                self._users.move_to_end(user_id)
                self._counts.hits += 1
                return recent
            del self._users[user_id]
        self._counts.misses += 1
        return NOTHING

    async def recent_many(self, user_ids: Sequence[UserId], deadline: Deadline) -> list[Recent]:
        """The same for several users."""
        return [await self.recent(user_id, deadline) for user_id in user_ids]

    async def append(self, events: Iterable[Interaction]) -> None:
        """Take up events."""
        users, now = self._users, self._clock()
        for user_id, items in by_user(events, self._length).items():
            appended_at, known = users.get(user_id, (now, NOTHING))
            older = known.items if now - appended_at < self._ttl_s else ()
            users[user_id] = now, Recent(joined(older, items, self._length))
            users.move_to_end(user_id)
            self._counts.saved += len(items)
        while len(users) > self._most:
            users.popitem(last=False)

    def flush_counts(self) -> None:
        """Hand what was counted to the metrics."""
        self._counts.flush()

    async def close(self) -> None:
        """Forget everybody."""
        self._users.clear()
