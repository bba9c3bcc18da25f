"""Clients that send or read slower than anybody should, beside others that do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import write_tiny_bundle
from served import Load, Served, served

SLOW = 300
ROOM_MIB = 50


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    write_tiny_bundle(tmp_path / "artifacts")
    with served(tmp_path / "artifacts", tmp_path) as running:
        yield running


def resident_mib(service: Served) -> float:
    return sum(
        int(line.split()[1]) / 1024
        for pid in service.workers
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


async def slow_client(service: Served, number: int, asked: list[int]) -> bytes:
    """Send a head (every second client: a body) a few bytes at a time; return what the server said at the end."""
    reader, writer = await asyncio.open_connection(service.host, service.port)
    start = (
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n"
        if number % 2
        else b"GET /reco/"
    )
    writer.write(start)
    asked.append(number)
    answer = asyncio.create_task(reader.read())
    with contextlib.suppress(OSError):
        while not answer.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait({answer}, timeout=0.2)
    writer.close()
    try:
        return await answer
    except OSError:
        return b""


async def test_slow_clients_are_dropped_and_others_do_not_notice(service: Served) -> None:
    load = Load(service, list(range(100, 250, 3)))
    async with load.running():
        await load.answered(200)
        before = resident_mib(service)
        asked: list[int] = []
        slow = [asyncio.create_task(slow_client(service, number, asked)) for number in range(SLOW)]
        await load.until(lambda: len(asked) == SLOW, "every slow client to have begun")
        await load.answered(200)
        assert resident_mib(service) - before < ROOM_MIB
        answers = await asyncio.wait_for(asyncio.gather(*slow), 30)
        await load.answered(200)
    assert set(load.outcomes) == {"200"}
    # A byte that crosses the refusal does not reset the connection, and with it an answer not yet read.
    assert {answer[:13] for answer in answers[::2]} == {b"HTTP/1.1 408 "}
    # Without a token a body is not even waited for, or it is cut.
    assert all(answer[:13] in (b"", b"HTTP/1.1 401 ") for answer in answers[1::2])
