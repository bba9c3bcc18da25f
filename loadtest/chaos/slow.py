"""Clients that never finish their request's head: many at once, a byte at a time.

    python -m loadtest.chaos.slow HOST PORT CLIENTS

They run in a process of their own: in the generator's they would make it late, and that be counted as the service's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from loadtest.chaos.service import Unkept
from loadtest.openloop.generator import fast_loop

_PACE_S = 0.5
_OPENED_OVER_S = 1.0
"""They come one after the other: all at one instant would send all their bytes at one instant too, ever after."""


@dataclass(slots=True)
class Siege:
    """`told`: how many read a 408. `dropped`: how many connections the server ended. `longest_s`: one lasted."""

    told: int = 0
    dropped: int = 0
    longest_s: float = 0.0
    most_resident: int = 0


async def besiege(address: tuple[str, int], clients: int, resident: Callable[[], int]) -> Siege:
    """Run them all until the server has dropped the last. `resident`: reads the service's memory, bytes.

    Raises Unkept where they could not be run.
    """
    words = ["-m", "loadtest.chaos.slow", address[0], str(address[1]), str(clients)]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None  # it is a pipe
    answer = asyncio.create_task(process.stdout.read())
    most = 0
    while not answer.done():
        most = max(most, await asyncio.to_thread(resident))
        await asyncio.wait({answer}, timeout=0.5)
    if await process.wait() != 0:
        raise Unkept("the slow clients could not be run")
    return Siege(**{**json.loads(answer.result()), "most_resident": most})


async def _all(address: tuple[str, int], clients: int) -> Siege:
    siege = Siege()
    await asyncio.gather(
        *(_slow(address, siege, after=_OPENED_OVER_S * number / clients) for number in range(clients))
    )
    return siege


async def _slow(address: tuple[str, int], siege: Siege, *, after: float) -> None:
    await asyncio.sleep(after)
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


def main() -> int:
    """Run from the command line."""
    host, port, clients = sys.argv[1:]
    with asyncio.Runner(loop_factory=fast_loop) as runner:
        siege = runner.run(_all((host, int(port)), int(clients)))
    sys.stdout.write(json.dumps(asdict(siege)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
