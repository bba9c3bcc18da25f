"""Clients that never finish their request's head: many at once, a byte at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

_PACE_S = 0.5


@dataclass(slots=True)
class Siege:
    """`told`: how many read a 408. `dropped`: how many connections the server ended. `longest_s`: one lasted."""

    told: int = 0
    dropped: int = 0
    longest_s: float = 0.0
    most_resident: int = 0


async def besiege(address: tuple[str, int], clients: int, resident: Callable[[], int]) -> Siege:
    """Run them all until the server has dropped the last. `resident`: reads the service's memory, bytes."""
    siege = Siege()
    tasks = {asyncio.create_task(_slow(address, siege)) for _ in range(clients)}
    while tasks:
        siege.most_resident = max(siege.most_resident, await asyncio.to_thread(resident))
        _, tasks = await asyncio.wait(tasks, timeout=0.5)
    return siege


async def _slow(address: tuple[str, int], siege: Siege) -> None:
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError:
        return
    began = time.monotonic()
    answer = asyncio.create_task(reader.read())
    with contextlib.suppress(OSError):
        writer.write(b"GET /reco/")
        while not answer.done() and time.monotonic() - began < 60:
            writer.write(b"x")
            await asyncio.wait({answer}, timeout=_PACE_S)
    if answer.done():
        siege.dropped += 1
        siege.longest_s = max(siege.longest_s, time.monotonic() - began)
        with contextlib.suppress(OSError):
            siege.told += answer.result().startswith(b"HTTP/1.1 408 ")
    else:
        answer.cancel()
    writer.close()
