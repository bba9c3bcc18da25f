"""What the log wrote, told to whoever listens: a Redis stream that all workers and replicas share.

The log is the truth and never waits for the bus. A record is added after it was written; one whose adding was not
answered is added again, so a listener may see it twice and tells by its id. While Redis is away the newest records
wait, a bounded number; older ones are left out and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from itertools import islice

from service.events.metrics import EventCounts
from service.state.redis_link import Command, RedisAway, RedisLink

STREAM = b"reco:events"
FIELD = b"record"
"""The one field of an entry: the record's JSON, as in the log."""
MAX_WAITING = 20_000
_AT_ONCE = 256
_TIMEOUT_S = 1.0
_PAUSE_S = 0.1
_CLOSE_S = 2.0


class EventBus:
    """Call from the event loop only."""

    def __init__(self, link: RedisLink, counts: EventCounts, *, length: int) -> None:
        """`length`: about how many entries the stream keeps."""
        self._link, self._counts, self._length = link, counts, length
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, and to add what is offered once connected."""
        self._task = asyncio.create_task(self._run())

    def offer(self, payloads: Iterable[bytes]) -> None:
        """Leave records to be added; the oldest make room where too many wait."""
        self._waiting.extend(payloads)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._counts.unpublished += 1
        self._news.set()

    async def close(self) -> None:
        """Add what waits, unless Redis is away or that takes too long, and end."""
        if self._task is None:
            return
        self._closing = True
        self._news.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, _CLOSE_S)
        self._task = None
        self._counts.unpublished += len(self._waiting)
        self._waiting.clear()
        await self._link.close()

    async def _run(self) -> None:
        await self._link.start()
        while True:
            self._news.clear()
            try:
                while self._waiting:
                    await self._add()
            except RedisAway:
                if self._closing:
                    return
                await asyncio.sleep(_PAUSE_S)
                continue
            if self._closing:
                return
            await self._news.wait()

    async def _add(self) -> None:
        """Add the oldest of what waits. Raises RedisAway; then they wait on."""
        batch = list(islice(self._waiting, _AT_ONCE))
        add: Command = ("XADD", STREAM, "MAXLEN", "~", self._length, "*", FIELD)
        replies = await self._link.ask([(*add, payload) for payload in batch], _TIMEOUT_S)
        added = sum(isinstance(reply, bytes) for reply in replies)
        self._counts.published += added
        self._counts.unpublished += (
            len(batch) - added
        )  # refused: no stream under this name, no memory, no permission
        for payload in batch:
            # Those that had to make room meanwhile are counted already, and are not there any more.
            if self._waiting and self._waiting[0] is payload:
                self._waiting.popleft()
