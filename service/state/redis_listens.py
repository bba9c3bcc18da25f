"""Listens in Redis, as botify keeps them: replicas, and botify itself, read and write the same lists.

Database 2, key `user:{u}:listens`: a list of `{"track", "time"}`, newest first, never more than KEPT.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson

from service.domain import Deadline
from service.state.listens import KEPT, Heard, Listen, MemoryListens
from service.state.redis_link import Command, RedisAway, RedisLink, Refused, Say

DATABASE = 2


def database_url(url: str, database: int = DATABASE) -> str:
    """Point a Redis URL at a database, whichever it named."""
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "db"]
    path = parts.path
    if parts.scheme == "unix":
        query.append(("db", str(database)))
    else:
        path = f"/{database}"
    asked = f"?{urlencode(query)}" if query else ""
    return f"{parts.scheme}://{parts.netloc}{path}{asked}"


def commands_of(user_id: int, listen: Listen) -> list[Command]:
    """What remembers a listen and tells the newest: one pipeline."""
    key = f"user:{user_id}:listens"
    # Spaced as Python's json does: entries of botify's own writing and of ours are of one form.
    entry = b'{"track": %d, "time": %b}' % (listen.track, orjson.dumps(listen.time))
    return [("LPUSH", key, entry), ("LTRIM", key, 0, KEPT - 1), ("LRANGE", key, 0, KEPT - 1)]


class RedisListens:
    """While Redis is away each process goes on from what it was told itself, and says that this may not be all.

    Listens of that time are not written later.
    """

    def __init__(self, url: str, *, timeout_s: float, say: Say | None = None) -> None:
        """`timeout_s`: most that a round trip may take. Raises InputError for a URL that is none of a Redis."""
        self._link = RedisLink(database_url(url), timeout_s=timeout_s, say=say)
        self._own = MemoryListens()

    async def start(self) -> None:
        """Connect, or go on trying."""
        await self._link.start()

    async def heard(self, user_id: int, listen: Listen, deadline: Deadline) -> Heard:
        """Remember a listen and tell the newest ones, in one round trip."""
        own = self._own.add(user_id, listen)
        try:
            replies = await self._link.ask(
                commands_of(user_id, listen), deadline.remaining() - deadline.reserve
            )
        except RedisAway:
            return Heard(own, degraded=True)
        listens = _listens(replies[2])
        return Heard(own, degraded=True) if listens is None else Heard(listens)

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()
        await self._own.close()


def _listens(reply: Any) -> tuple[Listen, ...] | None:
    """Read what LRANGE answered; None where an entry is not in botify's form."""
    if isinstance(reply, Refused) or not isinstance(reply, list):
        return None
    listens = []
    for raw in reply:
        try:
            entry = orjson.loads(raw)
            listens.append(Listen(int(entry["track"]), float(entry["time"])))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError):
            return None
    return tuple(listens)
