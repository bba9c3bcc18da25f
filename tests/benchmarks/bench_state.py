"""What knowing a user's recent history costs an answer, and what an unwell Redis adds.

    .venv/bin/python tests/benchmarks/bench_state.py

In one process, without HTTP's sockets; Redis is a real server behind a unix socket. `read`: one history of 5 and of
200 items, microseconds; `sqlite_thread` is the same lookup handed to a thread and back. `request`: the hot route end to
end, 8 callers at once, one in ten users with a history; milliseconds by percentile, with Redis well, frozen, 50 ms
late and flapping. Prints a table to stderr and one JSON line to stdout. Takes about half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import orjson
import uvloop
from factories import write_tiny_bundle
from histories_at import Kept, did, in_memory, in_redis, in_sqlite, until
from redis_at import Proxy, RedisServer, proxied, redis_server
from running import ask, running, settings_for

from service.domain import Deadline

READS, SECONDS, CALLERS = 3000, 2.5, 8
USERS = [100 + 3 * row for row in range(55)]
Samples = list[float]
Disturbance = Callable[[], Coroutine[Any, Any, None]]


def percentiles(samples: Samples, unit: float) -> dict[str, float]:
    ordered = sorted(samples)
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        name: round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * unit, 3)
        for name, share in places.items()
    }


async def timed(read: Callable[[], Awaitable[object]]) -> dict[str, float]:
    samples: Samples = []
    for _ in range(READS):
        began = time.perf_counter()
        await read()
        samples.append(time.perf_counter() - began)
    return percentiles(samples, 1e6)


async def reads(folder: Path, server: RedisServer) -> dict[str, Any]:
    """Microseconds of one read, by where the history is and how long it is."""
    found: dict[str, Any] = {}
    kinds: dict[str, contextlib.AbstractAsyncContextManager[Kept]] = {
        "memory": in_memory(length=200),
        "sqlite": in_sqlite(folder / "reads", length=200),
        "redis": in_redis(server, length=200),
    }
    for kind, keeping in kinds.items():
        async with keeping as kept:
            for length in (5, 200):
                await kept.history.append(did(length, *range(100_000, 100_000 + length)))
                assert len(await kept.items(length)) == length
                read = _reading(kept, length)
                found[f"{kind}/{length}"] = await timed(read)
                if kind == "sqlite":
                    with ThreadPoolExecutor(1) as thread:
                        found[f"sqlite_thread/{length}"] = await timed(
                            _on_a_thread(folder / "reads", length, thread)
                        )
    return found


def _reading(kept: Kept, user: int) -> Callable[[], Awaitable[object]]:
    return lambda: kept.history.recent(user, Deadline(0.05))


def _on_a_thread(path: Path, user: int, thread: ThreadPoolExecutor) -> Callable[[], Awaitable[object]]:
    """What a read would cost if the event loop were spared it."""
    connection = thread.submit(lambda: sqlite3.connect(path)).result()

    def read() -> object:
        (items,) = connection.execute("SELECT items FROM history WHERE user = ?", (b"%d" % user,)).fetchone()
        return orjson.loads(items)

    return lambda: asyncio.get_running_loop().run_in_executor(thread, read)


async def requests(app: Any, beside: Disturbance | None = None) -> dict[str, Any]:
    """Milliseconds of the hot route's answers, and the share of them that lacked the history."""
    samples: Samples = []
    lacking = 0
    over = time.perf_counter() + SECONDS

    async def call(number: int) -> None:
        nonlocal lacking
        chance = random.Random(number)
        while time.perf_counter() < over:
            user = chance.choice(USERS)
            began = time.perf_counter()
            reply = await ask(app, b"/reco/als/%d" % user)
            samples.append(time.perf_counter() - began)
            assert reply.status == 200
            lacking += b"history" in (reply.header(b"x-reco-degraded") or b"")
            await asyncio.sleep(0.001)

    disturbing = asyncio.create_task(beside()) if beside is not None else None
    await asyncio.gather(*(call(number) for number in range(CALLERS)))
    if disturbing is not None:
        disturbing.cancel()
    return {**percentiles(samples, 1e3), "answers": len(samples), "lacking": round(lacking / len(samples), 4)}


@contextlib.asynccontextmanager
async def serving(artifacts: Path, **settings: Any) -> AsyncIterator[Any]:
    async with running(settings_for(artifacts, budget_ms=50, **settings)) as (app, _):
        history = app.state.services.history
        if history is not None:
            for user in USERS[::10]:
                await history.append(did(user, 10, 12, 14))
        await requests_once(app)
        yield app


async def requests_once(app: Any) -> None:
    """Warm up: every user once."""
    for user in USERS:
        await ask(app, b"/reco/als/%d" % user)


def _flapping(proxy: Proxy) -> Disturbance:
    async def flap() -> None:
        while True:
            await asyncio.sleep(0.2)
            proxy.refusing = not proxy.refusing
            proxy.cut()

    return flap


async def answers(artifacts: Path, folder: Path, server: RedisServer) -> dict[str, Any]:
    """Milliseconds of an answer by where histories are and how Redis fares."""
    found: dict[str, Any] = {}
    async with serving(artifacts) as app:
        found["off"] = await requests(app)
    async with serving(artifacts, history="memory") as app:
        found["memory"] = await requests(app)
    async with serving(artifacts, history="sqlite", history_path=folder / "h") as app:
        found["sqlite"] = await requests(app)
    async with proxied(server) as proxy, serving(artifacts, history="redis", redis_url=server.url) as app:
        found["redis"] = await requests(app)

        async def freeze() -> None:
            await asyncio.sleep(SECONDS / 4)
            server.freeze()

        found["redis, frozen"] = await requests(app, freeze)
        server.thaw()
        async with serving(artifacts, history="redis", redis_url=proxy.url) as through:

            async def slow() -> None:
                await asyncio.sleep(SECONDS / 4)
                proxy.delay_s = 0.05

            found["redis, 50 ms late"] = await requests(through, slow)
            proxy.delay_s = 0.0
            history = through.state.services.history
            counts = history._counts
            await until(lambda: (history.flush_counts(), counts.breaker == 0)[1])
            found["redis, flapping"] = await requests(through, _flapping(proxy))
    return found


def table(title: str, rows: dict[str, Any]) -> None:
    """To stderr, for a person."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title:24}" + "".join(f"{column:>12}" for column in columns), file=sys.stderr)
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row[column]:>12}" for column in columns), file=sys.stderr)


def find(name: str, how_to_get_it: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"no {name}: {how_to_get_it}")
    return found


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server(find) as server:
        artifacts = Path(folder) / "artifacts"
        write_tiny_bundle(artifacts)
        read = await reads(Path(folder), server)
        server.run("FLUSHALL")
        request = await answers(artifacts, Path(folder), server)
    table("read, µs", read)
    table("answer, ms", request)
    print(json.dumps({"read_us": read, "answer_ms": request}))


if __name__ == "__main__":
    uvloop.run(main())
