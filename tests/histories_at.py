"""Histories of every kind for tests, with time that passes when told to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis_at import PATIENCE_S, RedisServer

from service.domain import Deadline, ItemId, UserId
from service.state.history import UserHistory
from service.state.memory import MemoryHistory
from service.state.metrics import HistoryCounts
from service.state.redis_link import RedisLink
from service.state.redis_store import RedisStore
from service.state.sqlite_store import SqliteStore
from service.state.stored import StoredHistory
from service.telemetry import Telemetry

LENGTH = 5
TTL_S = 1000.0
PATIENT_S = 10.0
"""A time-out that a busy machine keeps."""


@dataclass(frozen=True, slots=True)
class Did:
    """What somebody did."""

    user_id: UserId
    item_id: ItemId
    type: str = "view"


def did(user_id: UserId, *items: ItemId) -> list[Did]:
    return [Did(user_id, item) for item in items]


def never() -> Deadline:
    return Deadline.none()


@dataclass
class Clock:
    """Reads what it was set to."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Kept:
    """A history, what it counts, and how its TTL passes."""

    history: UserHistory
    counts: HistoryCounts
    pass_ttl: Callable[[], Awaitable[None]]

    async def items(self, user_id: UserId) -> tuple[ItemId, ...]:
        """A user's items, which the store must have told."""
        recent = await self.history.recent(user_id, never())
        assert not recent.degraded
        return recent.items


def new_counts() -> HistoryCounts:
    return HistoryCounts(Telemetry(budget_s=0.05))


@contextlib.asynccontextmanager
async def in_memory(*, length: int = LENGTH, users: int = 100, ttl_s: float = TTL_S) -> AsyncIterator[Kept]:
    clock, counts = Clock(), new_counts()

    async def pass_ttl() -> None:
        clock.now += ttl_s

    history = MemoryHistory(counts, length=length, ttl_s=ttl_s, users=users, clock=clock)
    async with running(history):
        yield Kept(history, counts, pass_ttl)


@contextlib.asynccontextmanager
async def in_sqlite(path: Path, *, length: int = LENGTH, ttl_s: float = TTL_S) -> AsyncIterator[Kept]:
    clock, counts = Clock(), new_counts()

    async def pass_ttl() -> None:
        clock.now += ttl_s

    history = StoredHistory(SqliteStore(path, length=length, ttl_s=ttl_s, clock=clock), counts, length=length)
    async with running(history):
        yield Kept(history, counts, pass_ttl)


@contextlib.asynccontextmanager
async def in_redis(
    server: RedisServer,
    *,
    url: str = "",
    length: int = LENGTH,
    ttl_s: float = TTL_S,
    timeout_s: float = PATIENT_S,
) -> AsyncIterator[Kept]:
    counts = new_counts()

    async def pass_ttl() -> None:
        """Redis has no clock to set: what would expire then expires now."""
        for key in server.run("KEYS", "*"):
            left_ms = server.run("PTTL", key)
            assert 0 < left_ms <= ttl_s * 1000
            server.run("PEXPIRE", key, 1)
        await until(lambda: not server.run("KEYS", "*"))

    link = RedisLink(url or server.url, timeout_s=timeout_s)
    store = RedisStore(link, counts, length=length, ttl_s=ttl_s, timeout_s=timeout_s)
    history = StoredHistory(store, counts, length=length)
    async with running(history):
        yield Kept(history, counts, pass_ttl)


@contextlib.asynccontextmanager
async def running(history: UserHistory) -> AsyncIterator[None]:
    await history.start()
    try:
        yield
    finally:
        await history.close()


async def until(condition: Callable[[], object]) -> None:
    """Poll until it holds."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        await asyncio.sleep(0.005)


async def until_told(history: UserHistory, user_id: UserId) -> Sequence[ItemId]:
    """Poll until the store tells a user's history."""
    give_up = time.monotonic() + PATIENCE_S
    while (recent := await history.recent(user_id, Deadline(PATIENT_S))).degraded:
        assert time.monotonic() < give_up, "waited in vain"
        await asyncio.sleep(0.005)
    return recent.items
