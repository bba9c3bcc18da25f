"""Clients that never finish their request's head: many at once, a byte at a time.

    python -m loadtest.chaos.slow HOST PORT CLIENTS

They run in a process of their own, which may share its core with the load generator: so they are plain sockets in one
loop that wakes for some dozen of them, a hundred microseconds, and not a task each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from loadtest.chaos.service import Unkept

_PACE_S = 0.5
_OPENED_OVER_S = 1.0
"""They come one after the other: all at one instant would send all their bytes at one instant too, ever after."""
_TURN_S = 0.005
_WEIGHED_EVERY_S = 2.0
"""Reading what a process holds takes some milliseconds, from it and from whoever reads: seldom enough to spare p99."""
_MOST_S = 60.0


@dataclass(slots=True)
class Siege:
    """`told`: how many read a 408. `dropped`: how many connections the server ended. `longest_s`: one lasted."""

    told: int = 0
    dropped: int = 0
    longest_s: float = 0.0
    most_resident: int = 0


async def started(address: tuple[str, int], clients: int) -> asyncio.subprocess.Process:
    """Their process, waiting for its signal: that it starts is no part of what they do to the load."""
    words = ["-m", "loadtest.chaos.slow", address[0], str(address[1]), str(clients)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe)
    assert process.stdout is not None  # it is a pipe
    await process.stdout.readline()
    return process


async def besiege(process: asyncio.subprocess.Process, resident: Callable[[], int]) -> Siege:
    """Run them all until the server has dropped the last. `resident`: reads the service's memory, bytes.

    Raises Unkept where they could not be run.
    """
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    process.stdin.write(b"\n")
    answer = asyncio.create_task(process.stdout.read())
    most = 0
    while not answer.done():
        await asyncio.wait({answer}, timeout=_WEIGHED_EVERY_S)
        most = max(most, await asyncio.to_thread(resident))
    if await process.wait() != 0:
        raise Unkept("the slow clients could not be run")
    return Siege(**{**json.loads(answer.result()), "most_resident": most})


class _Slow:
    """One connection: what it has read, and when it sends its next byte."""

    __slots__ = ("began", "due", "read", "socket")

    def __init__(self, address: tuple[str, int], now: float) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setblocking(False)
        self.began = self.due = now
        self.read = b""
        self.send(b"GET /reco/", now)

    def send(self, part: bytes, now: float) -> None:
        with contextlib.suppress(OSError):  # it is read, below, that the server has ended it
            self.socket.send(part)
        self.due = now + _PACE_S

    def ended(self) -> bool:
        """Read what there is; whether that was the end."""
        try:
            part = self.socket.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.read += part
        return not part


def _all(address: tuple[str, int], clients: int) -> Siege:
    siege, open_now = Siege(), dict[int, _Slow]()
    began, opened = time.monotonic(), 0
    with select.epoll() as readable:
        while (opened < clients or open_now) and time.monotonic() - began < _MOST_S:
            now = time.monotonic()
            while opened < min(clients, clients * (now - began) / _OPENED_OVER_S):
                opened += 1
                with contextlib.suppress(OSError):
                    client = _Slow(address, now)
                    open_now[client.socket.fileno()] = client
                    readable.register(client.socket, select.EPOLLIN)
            for client in open_now.values():
                if client.due <= now:
                    client.send(b"x", now)
            for descriptor, _ in readable.poll(0):
                client = open_now[descriptor]
                if client.ended():
                    siege.dropped += 1
                    siege.longest_s = max(siege.longest_s, now - client.began)
                    siege.told += client.read.startswith(b"HTTP/1.1 408 ")
                    readable.unregister(descriptor)
                    client.socket.close()
                    del open_now[descriptor]
            time.sleep(_TURN_S)
    return siege


def main() -> int:
    """Run from the command line."""
    host, port, clients = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(asdict(_all((host, int(port)), int(clients)))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
