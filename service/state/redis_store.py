"""Histories in Redis, shared by all replicas.

`reco:history:17` is a string of JSON pairs `[17,50]`, user and item, one a line and newest last. Every pair names its
user, so a value that got under the wrong key is noticed, and JSON tells 1 from "1" in key and value alike.
"""

from __future__ import annotations

import hashlib
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
_APPEND = b"""
local kept, coming = {}, {}
local begin = ARGV[3]
for n = 4, #ARGV do coming[ARGV[n]] = true end
for pair in string.gmatch(redis.call('GET', KEYS[1]) or '', '[^\\n]+') do
  if string.sub(pair, 1, #begin) == begin and not coming[pair] then kept[#kept + 1] = pair end
end
for n = 4, #ARGV do kept[#kept + 1] = ARGV[n] end
local first = math.max(1, #kept - tonumber(ARGV[1]) + 1)
redis.call('SET', KEYS[1], table.concat(kept, '\\n', first), 'PX', ARGV[2])
"""
"""Keys: the user's. Arguments: length, TTL in milliseconds, how the user's pairs begin, pairs. What is not the user's
goes; a pair that comes again moves to the end."""
_APPEND_SHA = hashlib.sha1(_APPEND, usedforsecurity=False).hexdigest()


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
        left = deadline.remaining() - deadline.reserve
        try:
            replies = await self._link.ask(
                [("GET", KEY + orjson.dumps(user_id)) for user_id in user_ids], left
            )
        except RedisAway as away:
            raise StoreTrouble(away.reason) from None
        return [_items(reply, user_id) for user_id, reply in zip(user_ids, replies, strict=True)]

    async def save(self, histories: ByUser) -> None:
        """Append, all of a user's at once. Raises StoreTrouble.

        A key that holds something else than a string is left alone, and its user's items are counted as lost.
        """
        commands = [self._appending(user_id, items) for user_id, items in histories.items()]
        # The first brings the script that the others name.
        commands[:1] = [("EVAL", _APPEND, *command[2:]) for command in commands[:1]]
        try:
            replies = await self._link.ask(commands, self._timeout_s)
        except RedisAway as away:
            raise StoreTrouble(away.reason) from None
        for reply, items in zip(replies, histories.values(), strict=True):
            if not isinstance(reply, Refused):
                continue
            if _WRONG_TYPE not in str(reply):  # read-only, out of memory, no permission
                raise StoreTrouble("away")
            self._counts.lost += len(items)

    def _appending(self, user_id: UserId, items: Items) -> Command:
        user = orjson.dumps(user_id)
        begin = b"[%b," % user
        pairs = [b"%b%b]" % (begin, orjson.dumps(item)) for item in items]
        return ("EVALSHA", _APPEND_SHA, 1, KEY + user, self._length, self._ttl_ms, begin, *pairs)

    def _observe(self) -> None:
        self._counts.breaker = _STATES[self._link.breaker.state]
        self._counts.opened = self._link.opened

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()


def _items(reply: Any, user_id: UserId) -> Items | None:
    """Items of a reply; None for anything but the user's own pairs."""
    if reply is None:
        return ()
    kind = type(user_id)
    try:
        pairs = orjson.loads(b"[%b]" % reply.replace(b"\n", b","))
        own = [item for owner, item in pairs if owner == user_id and type(owner) is kind]
    except (AttributeError, TypeError, ValueError):
        return None
    return items_of(own) if len(own) == len(pairs) else None
