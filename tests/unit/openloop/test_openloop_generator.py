"""The generator against servers whose behaviour is known: requests leave when due and count as what they became."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from loadtest.openloop.generator import Generator, Target
from loadtest.openloop.outcome import Outcome
from loadtest.openloop.shots import draw_shots, due_times
from loadtest.scenario import Scenario

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OPTIONS = argparse.Namespace(ids="5..5", zipf=0.0, cold=0.0, think="none", k=2, models="m", seed=1, token="t")
GOOD = b'{"user_id":5,"items":[1,2]}'


def answer(body: bytes = GOOD, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *lines])
    return head + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the loop's next turns


async def fired(
    port: int,
    count: int,
    *,
    connections: int = 2,
    reuse: bool = True,
    patience_s: float = 20.0,
    most: int = 500,
) -> Outcome:
    target = Target("127.0.0.1", port, connections, most, reuse, patience_s)
    shots = draw_shots(Scenario(OPTIONS), count, "h", close=not reuse)
    async with Generator(target) as generator:
        return await generator.run(
            shots, due_times("constant", count / 0.1, 0.1, 1), rate=count / 0.1, seconds=0.1, budget_s=20
        )


def by_turns(*answers: bytes) -> Serve:
    """Serve with these answers, over and over, counted over all connections. b"": hang up."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await reader.readuntil(b"\r\n\r\n")
            said = answers[asked % len(answers)]
            asked += 1
            if not said:
                return
            for part in (said[:9], said[9:40], said[40:]):  # answers come in pieces, too
                writer.write(part)
                await writer.drain()
            if b"connection: close" in said:
                return

    return serve


async def test_requests_leave_when_due_though_nobody_answers_those_before() -> None:
    everybody, count = asyncio.Event(), 40

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await reader.readuntil(b"\r\n\r\n")
        count -= 1
        if count == 0:
            everybody.set()
        await everybody.wait()
        writer.write(answer())
        await reader.read()

    async with listening(serve) as port:
        outcome = await fired(port, 40, connections=1)
    assert (outcome.sent, outcome.ok, outcome.errors) == (40, 40, 0)
    # The first waited for the last: the whole wait is counted, from when it was due.
    assert outcome.latency.quantile(1.0) >= 39 / 400


async def test_what_became_of_each_request_is_told_apart() -> None:
    serve = by_turns(
        answer(),
        answer(b"{}", b"503 Service Unavailable"),
        b"",
        answer(b'{"user_id":6,"items":[1,2]}'),
        answer(GOOD, b"200 OK", b"x-reco-degraded: retrieve", b"x-reco-source: popular"),
        answer(GOOD, b"200 OK", b"connection: close"),
    )
    async with listening(serve) as port:
        outcome = await fired(port, 60)
    assert outcome.sent == 60
    assert (outcome.statuses, outcome.lost) == ({200: 40, 503: 10}, 10)
    assert outcome.faults == {"another user's answer": 10}
    assert (outcome.ok, outcome.shed, outcome.degraded, outcome.in_budget) == (30, 10, 10, 30)
    assert outcome.sources == {"popular": 10}
    assert (outcome.fallback_share, outcome.errors) == (10 / 30, 30)


async def test_whole_answers_are_checked_now_and_then() -> None:
    async with listening(by_turns(answer(b'{"user_id":5,"items":[1,1]}'))) as port:
        outcome = await fired(port, 16)
    assert outcome.faults == {"an item twice": 2}


async def test_one_connection_a_request() -> None:
    made = 0
    inner = by_turns(answer(GOOD, b"200 OK", b"connection: close"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await inner(reader, writer)

    async with listening(serve) as port:
        outcome = await fired(port, 20, reuse=False)
    assert (outcome.ok, made) == (20, 20)


async def test_who_never_answers_is_given_up_and_nobody_there_is_refused() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as port:
        outcome = await fired(port, 5, patience_s=0.05)
    assert (outcome.late, outcome.errors) == (5, 5)
    outcome = await fired(port, 5, connections=1)
    assert outcome.refused == 5


@pytest.mark.parametrize("kind", ["constant", "poisson"])
def test_arrivals_keep_their_rate_and_repeat_for_a_seed(kind: Any) -> None:
    times = list(due_times(kind, 500, 20, 3))
    assert times == sorted(times) == list(due_times(kind, 500, 20, 3))
    assert times[-1] < 20
    assert abs(len(times) - 10_000) < 400
    gaps = [after - before for before, after in itertools.pairwise(times)]
    spread = sum(gap > 2 * 0.002 for gap in gaps) / len(gaps)
    assert spread == 0 if kind == "constant" else abs(spread - 0.135) < 0.02  # exp(-2)
