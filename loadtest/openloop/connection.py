"""One connection of the generator: a request at a time, its answer read without a library's cost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from loadtest.openloop.shots import Shot

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` 0: the connection ended before the answer was whole."""

    status: int
    head: bytes
    body: bytes


@dataclass(slots=True, eq=False)
class Flight:
    """A request under way. `due`, `sent_at`: seconds on the run's clock."""

    shot: Shot
    due: float
    sent_at: float = 0.0
    connection: Connection | None = None
    over: bool = False


Done = Callable[[Flight, Answer], None]


class Connection(asyncio.Protocol):
    """Sends a flight's bytes, hands its answer to `done`, then says through `free` whether it can take another."""

    def __init__(self, done: Done, free: Callable[[Connection], None]) -> None:
        self._done, self._free = done, free
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._needed = 0
        self._body_at = 0
        self.flight: Flight | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def send(self, flight: Flight) -> None:
        """Send a request; the connection must be free."""
        assert self._transport is not None
        self.flight, flight.connection = flight, self
        self._transport.write(flight.shot.raw)

    def data_received(self, data: bytes) -> None:
        """Gather the answer."""
        flight = self.flight
        if flight is None:  # bytes that nobody asked for
            self.abort()
            return
        received = self._received + data if self._received else data
        if not self._needed:
            end = received.find(b"\r\n\r\n")
            found = None if end < 0 else _LENGTH.search(received, 0, end)
            if found is None:
                self._received = received
                if end >= 0:
                    self.abort()  # no length: not an answer of the kind we ask for
                return
            self._body_at = end + 4
            self._needed = self._body_at + int(found[1])
        if len(received) < self._needed:
            self._received = received
            return
        head, body = received[: self._body_at], received[self._body_at : self._needed]
        self._received, self._needed, self.flight = b"", 0, None
        if _CLOSE.search(head):
            self.abort()
        status = int(head[9:12]) if head[9:12].isdigit() else 0
        self._done(flight, Answer(status, head, body))
        if not self.closed:
            self._free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of a request that was under way."""
        self.closed = True
        flight, self.flight = self.flight, None
        if flight is not None:
            self._done(flight, Answer(0, self._received, repr(exc).encode()))

    def abort(self) -> None:
        """Let go of the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()
