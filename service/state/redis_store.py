"""Histories in Redis, shared by all replicas.

`reco:history:17` is a list, newest last, of JSON pairs `[17,50]`: user and item. Every element names its user, so a
value that got under the wrong key is noticed, and JSON tells 1 from "1" in key and value alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from service.domain import Deadline, UserId
from service.state.history import ByUser, Items
from service.state.metrics import CLOSED, HALF_OPEN, OPEN, HistoryCounts
from service.state.redis_link import Command, RedisAway, RedisLink, Refused
from service.state.stored import StoreTrouble, items_of

KEY = b"reco:history:"
_STATES = {"closed": CLOSED, "half_open": HALF_OPEN, "open": OPEN}
_WRONG_TYPE = "WRONGTYPE"


class RedisStore:
    """A store behind a link, which is this store's own."""

    def __init__(
        self, link: RedisLink, counts: HistoryCounts, *, length: int, ttl_s: float, timeout_s: float
    ) -> None:
        self._link, self._counts, self._timeout_s = link, counts, timeout_s
        self._length, self._ttl_ms = length, max(1, round(ttl_s * 1000))
        counts.watch = self._observe

    async def start(self) -> None:
        """Connect, or go on trying."""
        await self._link.start()

    async def read(self, user_ids: Sequence[UserId], deadline: Deadline) -> list[Items | None]:
        """Histories in one round trip. Raises StoreTrouble."""
        keys = [orjson.dumps(user_id) for user_id in user_ids]
        left = deadline.remaining() - deadline.reserve
        try:
            replies = await self._link.ask([("LRANGE", KEY + key, 0, -1) for key in keys], left)
        except RedisAway as away:
            raise StoreTrouble(away.reason) from None
        return [_items(reply, user_id) for user_id, reply in zip(user_ids, replies, strict=True)]

    async def save(self, histories: ByUser) -> None:
        """Append, all of a user's at once. Raises StoreTrouble.

        A key that holds something else than a list is left alone, and its user's items are counted as lost.
        """
        commands: list[Command] = []
        ends: list[int] = []
        for user_id, items in histories.items():
            commands += self._appending(orjson.dumps(user_id), items)
            ends.append(len(commands) - 1)
        try:
            replies = await self._link.ask(commands, self._timeout_s)
        except RedisAway as away:
            raise StoreTrouble(away.reason) from None
        for end, items in zip(ends, histories.values(), strict=True):
            refused = [reply for reply in _flat(replies[end]) if isinstance(reply, Refused)]
            if any(_WRONG_TYPE in str(reply) for reply in refused):
                self._counts.lost += len(items)
            elif refused:  # read-only, out of memory, no permission
                raise StoreTrouble("away")

    def _appending(self, user: bytes, items: Items) -> list[Command]:
        key = KEY + user
        elements = [b"[%b,%b]" % (user, orjson.dumps(item)) for item in items]
        return [
            ("MULTI",),
            *(("LREM", key, 0, element) for element in elements),
            ("RPUSH", key, *elements),
            ("LTRIM", key, -self._length, -1),
            ("PEXPIRE", key, self._ttl_ms),
            ("EXEC",),
        ]

    def _observe(self) -> None:
        self._counts.breaker = _STATES[self._link.breaker.state]
        self._counts.opened = self._link.opened

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()


def _flat(reply: Any) -> list[Any]:
    return reply if isinstance(reply, list) else [reply]


def _items(reply: Any, user_id: UserId) -> Items | None:
    """Items of a reply; None for anything but a list of the user's own pairs."""
    if not isinstance(reply, list):
        return None
    kind = type(user_id)
    try:
        pairs = orjson.loads(b"[%b]" % b",".join(reply))
        own = [item for owner, item in pairs if owner == user_id and type(owner) is kind]
    except (TypeError, ValueError):
        return None
    return items_of(own) if len(own) == len(reply) else None
