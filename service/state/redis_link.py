"""One connection to a Redis, made for a request path: bounded in time, never asked while it fails, never out of step.

The client's own pool, retries and time-outs are left aside; its connection speaks the protocol. What many requests
ask meanwhile goes out together as one pipeline and comes back as one, which costs a third of a command each. Only
this link's task reads: a caller that stops waiting leaves nothing behind that another could take for its own (as in
redis-py#2665), and a batch that fails or is late takes the connection with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, ResponseError

from service.errors import InputError
from service.state.breaker import Breaker
from service.state.metrics import Trouble

Command = tuple[bytes | str | int, ...]
Refused = ResponseError
"""A command's reply where the server refuses that command; it comes in the command's place."""
Say = Callable[..., None]
"""`say(level, message, **fields)`."""

CONNECT_S = 1.0
"""How long making a connection may take. No request waits for it."""
_START_S = 1.0
_IDLE_S = 0.5
"""After so long without a request the connection is tried, so that its loss is known before a request meets it."""
_STALL_S, _GRACE_S = 0.002, 0.002
_MOST_WAITING = 4096
_MOST_AT_ONCE = 128


class RedisAway(Exception):
    """No answer: not connected, the connection failed, or it was late. What was asked may have been done."""

    def __init__(self, reason: Trouble) -> None:
        super().__init__(reason)
        self.reason: Trouble = reason


class _Asked:
    """Commands that go out together, and who waits for their replies."""

    __slots__ = ("commands", "replies")

    def __init__(self, commands: Sequence[Command], replies: asyncio.Future[list[Any]]) -> None:
        self.commands, self.replies = commands, replies


class RedisLink:
    """Call from the event loop only."""

    def __init__(self, url: str, *, timeout_s: float, say: Say | None = None) -> None:
        """`timeout_s`: most that a batch may take. Raises InputError for a URL that is none of a Redis."""
        self._pool = _pool(url)
        self._timeout_s = timeout_s
        self._say = say or (lambda *_, **__: None)
        self.breaker = Breaker()
        self.opened = 0
        """Times the link was lost."""
        self._connection: AbstractConnection | None = None
        self._waiting: deque[_Asked] = deque()
        self._news = asyncio.Event()
        self._first_try = asyncio.Event()
        self._rounds = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, or go on trying: returns after the first attempt or a second."""
        self._task = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first_try.wait(), _START_S)

    async def ask(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """Send commands together; returns a reply each, Refused where the server refused one.

        Raises RedisAway: at once while there is no connection, and no later than `timeout_s`.
        """
        if self.breaker.state != "closed":
            raise RedisAway("away")
        if timeout_s <= 0 or len(self._waiting) >= _MOST_WAITING:
            raise RedisAway("late")
        loop = asyncio.get_running_loop()
        replies: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append(_Asked(commands, replies))
        self._news.set()
        limit = _Limit(loop, min(timeout_s, self._timeout_s), lambda: _fail(replies, "late"))
        try:
            return await replies
        finally:
            limit.cancel()
            replies.cancel()

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self.breaker.state = "open"
        self._drop()

    # -- the one task that touches the connection ----------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._connect()
                    self._first_try.set()
                await self._exchange(self._connection)
            except Exception as error:  # whatever a server may send: the link goes on, over a new connection
                self._lost(error)
                self._first_try.set()
                await asyncio.sleep(self.breaker.pause_s)

    async def _connect(self) -> AbstractConnection:
        """Make a connection and try it: half open until it answers."""
        self.breaker.probing()
        connection = _new(self._pool)
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without
            await self._round(connection, [])
        except BaseException:
            _discard(connection)
            raise
        if self.breaker.failures:
            self._say("INFO", "redis is back")
        self.breaker.probed()
        return connection

    async def _exchange(self, connection: AbstractConnection) -> None:
        """Wait for somebody to ask, send what waits, and hand out the replies; an idle connection is only tried."""
        if not self._waiting:
            self._news.clear()
            try:
                async with asyncio.timeout(_IDLE_S):
                    await self._news.wait()
            except TimeoutError:
                await self._round(connection, [])
                return
        batch: list[_Asked] = []
        while self._waiting and len(batch) < _MOST_AT_ONCE:
            asked = self._waiting.popleft()
            if not asked.replies.done():
                batch.append(asked)
        if not batch:
            return
        try:
            replies = await self._round(
                connection, [command for asked in batch for command in asked.commands]
            )
        except BaseException:
            for asked in batch:
                _fail(asked.replies, "away")
            raise
        self.breaker.answered()
        begin = 0
        for asked in batch:
            end = begin + len(asked.commands)
            if not asked.replies.done():
                asked.replies.set_result(replies[begin:end])
            begin = end

    async def _round(self, connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
        """One round trip within `timeout_s`. Whatever it raises, the connection is spent."""
        self._rounds += 1
        mark = b"%d" % self._rounds
        replies: list[Any] = []
        limit = _Limit(asyncio.get_running_loop(), self._timeout_s, lambda: _discard(connection))
        try:
            packed = connection.pack_commands([*commands, ("PING", mark)])
            await connection.send_packed_command(packed, check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as refused:
                    replies.append(refused)
            _check_mark(await connection.read_response(), mark)
        except Exception as error:
            if limit.reached:
                raise TimeoutError("no answer in time") from error
            raise
        finally:
            limit.cancel()
        return replies

    def _lost(self, error: Exception) -> None:
        """Take note of a failure: the connection goes, and with it all who wait."""
        if self.breaker.failures == 0:
            reason = f"{type(error).__name__}: {error}"[:300]
            self._say("WARNING", "redis is away; answers do without it", reason=reason)
        self.opened += self.breaker.state == "closed"
        self.breaker.failed()
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _discard(connection)
        for asked in self._waiting:
            _fail(asked.replies, "away")
        self._waiting.clear()


def _fail(replies: asyncio.Future[list[Any]], reason: Trouble) -> None:
    if not replies.done():
        replies.set_exception(RedisAway(reason))


class _Limit:
    """Calls when time is up. If the event loop itself had stalled, what came meanwhile is read first: a pause of
    ours is not held against the server."""

    __slots__ = ("_call", "_due", "_handle", "_loop", "_spared", "reached")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call
        self._due = time.monotonic() + seconds
        self._spared = False
        self.reached = False
        self._handle = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        if not self._spared and time.monotonic() - self._due > _STALL_S:
            self._spared = True
            self._handle = self._loop.call_later(_GRACE_S, self._ring)
            return
        self.reached = True
        self._call()

    def cancel(self) -> None:
        """Don't."""
        self._handle.cancel()


def _check_mark(reply: object, mark: bytes) -> None:
    """A batch's own mark comes back last, or what came before it were the replies to something else."""
    if reply != mark:
        raise InvalidResponse("replies that belong to other commands")


def _discard(connection: AbstractConnection) -> None:
    """Close without a word: whatever is still on its way is nobody's."""
    # Its own `disconnect` would first try to send what the server has not taken.
    writer = connection._writer
    connection._reader = connection._writer = None
    if writer is not None:
        writer.transport.abort()


def _new(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it without
    return connection


def _pool(url: str) -> ConnectionPool:
    """Only to make connections of the URL's kind: TCP, TLS or a unix socket."""
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            health_check_interval=0,
            # hiredis makes room for as many elements as a reply claims to have: `*1000000000` costs it 8 GB.
            parser_class=_AsyncRESP2Parser,
        )
        _new(pool)
    except (ValueError, TypeError) as error:
        raise InputError(f"RECO_REDIS_URL: not a URL of a Redis ({error})") from None
    return pool
