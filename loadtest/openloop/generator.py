"""The generator: sends each request when it is due, on a connection that is free, and opens more when none is.

One process, one core, which it keeps busy: between requests it turns the loop rather than sleep, because a timer would
be late by up to a millisecond, and that would be counted as the service's. `Outcome.lag` tells how late it was itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtest.answers import fault_of
from loadtest.openloop.connection import Answer, Connection, Flight
from loadtest.openloop.outcome import SLICE_S, Outcome
from loadtest.openloop.shots import Shot

_SPIN_S = 0.003
_DEGRADED = b"\r\nx-reco-degraded:"
_SOURCE = b"\r\nx-reco-source: "
_CHECK_EVERY = 8
"""Every answer is held against the user it was asked for; one in so many is parsed and checked whole."""
Observer = Callable[[Flight, Answer, float], None]
"""Told of every answer with its latency, seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and over what.

    `connections` are made at first and kept (`reuse`) or each used once; more are opened up to `most` when all are
    busy. `patience_s`: after it a request is given up, as any client would.
    """

    host: str
    port: int
    connections: int = 64
    most: int = 4096
    reuse: bool = True
    patience_s: float = 2.0


class Generator:
    """Runs one stretch of load at a time against one target."""

    def __init__(self, target: Target, *, observer: Observer | None = None) -> None:
        self._target, self._observer = target, observer
        self._free: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[Flight] = deque()
        self._flying: deque[Flight] = deque()
        self._open_flights = 0
        self._answers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcome = Outcome(0, 0, 0)
        self._began = 0.0

    async def __aenter__(self) -> Generator:
        """Open the first connections."""
        if self._target.reuse:
            self._opening = self._target.connections
            await asyncio.gather(*(self._open() for _ in range(self._target.connections)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._all:
            connection.abort()
        await asyncio.sleep(0)

    async def run(
        self, shots: Sequence[Shot], due: Iterable[float], *, rate: float, seconds: float, budget_s: float
    ) -> Outcome:
        """Send shots, over and over, at the instants of `due`; returns when the last is answered or given up."""
        outcome = self._outcome = Outcome(rate, seconds, budget_s)
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        times = iter(due)
        upcoming = next(times, None)
        number, count = 0, len(shots)
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        self._began = began = time.perf_counter() + 0.002
        next_sweep = 0.05

        def turn() -> None:
            nonlocal upcoming, number, next_sweep
            now = time.perf_counter() - began
            sent = 0
            while upcoming is not None and upcoming <= now:
                self._launch(Flight(shots[number % count], upcoming))
                number += 1
                upcoming = next(times, None)
                sent += 1
                if sent == 64:  # let answers in between, however late we are
                    break
                now = time.perf_counter() - began
            if now >= next_sweep:
                self._give_up(now)
                next_sweep = now + 0.05
            if upcoming is None:
                if self._open_flights == 0:
                    over.set_result(None)
                else:
                    loop.call_later(0.001, turn)
            elif upcoming - now > _SPIN_S:
                loop.call_later(min(upcoming - now, 0.05) - 0.002, turn)
            else:
                loop.call_soon(turn)

        try:
            loop.call_soon(turn)
            await over
        finally:
            if collecting:
                gc.enable()
        return outcome

    @property
    def in_flight(self) -> int:
        """Requests sent or due, and not yet over."""
        return self._open_flights

    @property
    def now(self) -> float:
        """Seconds since the stretch began."""
        return time.perf_counter() - self._began

    # -- a request's way ------------------------------------------------------------------------------------

    def _launch(self, flight: Flight) -> None:
        self._outcome.sent += 1
        self._outcome.sent_by_slice[int(flight.due / SLICE_S)] += 1
        self._open_flights += 1
        self._flying.append(flight)
        while self._free:
            connection = self._free.popleft()
            if not connection.closed:
                self._send(connection, flight)
                return
            self._all.discard(connection)
        self._waiting.append(flight)
        self._open_more()

    def _send(self, connection: Connection, flight: Flight) -> None:
        flight.sent_at = time.perf_counter() - self._began
        self._outcome.lag.record(flight.sent_at - flight.due)
        connection.send(flight)

    def _open_more(self) -> None:
        """Begin a connection for a request that waits, unless each has one coming or there are enough."""
        if self._opening >= len(self._waiting) or len(self._all) + self._opening >= self._target.most:
            return
        self._opening += 1
        task = asyncio.get_running_loop().create_task(self._open())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        target = self._target
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._done, self._freed), target.host, target.port
            )
        except OSError as error:
            if self._waiting:
                self._end(self._waiting.popleft(), Answer(-1, b"", repr(error).encode()))
            return
        finally:
            self._opening -= 1
        self._all.add(connection)
        self._freed(connection)

    def _freed(self, connection: Connection) -> None:
        if not self._target.reuse and connection.flight is None and not self._waiting:
            connection.abort()
            self._all.discard(connection)
            return
        while self._waiting:
            flight = self._waiting.popleft()
            if not flight.over:
                self._send(connection, flight)
                return
        self._free.append(connection)

    def _done(self, flight: Flight, answer: Answer) -> None:
        connection = flight.connection
        if connection is not None and connection.closed:
            self._all.discard(connection)
            self._open_more()
        self._end(flight, answer)

    def _give_up(self, now: float) -> None:
        """End what has waited longer than the patience, oldest first."""
        flying, limit = self._flying, now - self._target.patience_s
        while flying and (flying[0].over or flying[0].due < limit):
            flight = flying.popleft()
            if flight.over:
                continue
            self._end(flight, Answer(-2, b"", b"given up"))
            connection = flight.connection
            if connection is not None:
                connection.flight = None
                connection.abort()
                self._all.discard(connection)

    def _end(self, flight: Flight, answer: Answer) -> None:
        if flight.over:
            return
        flight.over = True
        self._open_flights -= 1
        latency = time.perf_counter() - self._began - flight.due
        outcome, status = self._outcome, answer.status
        if status == 200:
            outcome.statuses[200] += 1
            outcome.latency.record(latency)
            fault = self._fault(flight, answer)
            if fault is not None:
                outcome.faults[fault] += 1
            else:
                self._good(flight, answer, latency)
        elif status > 0:
            outcome.statuses[status] += 1
        elif status == 0:
            outcome.lost += 1
            outcome.notes.append(f"lost at {flight.due:.3f} s: {answer.body.decode(errors='replace')}")
        elif status == -1:
            outcome.refused += 1
        else:
            outcome.late += 1
        if self._observer is not None:
            self._observer(flight, answer, latency)

    def _fault(self, flight: Flight, answer: Answer) -> str | None:
        request = flight.shot.request
        self._answers += 1
        if self._answers % _CHECK_EVERY and isinstance(request.user, int):
            told = answer.body.startswith(b'{"user_id":%d,' % request.user)
            return None if told else "another user's answer"
        return fault_of(200, answer.body, user=request.user, k=request.k)

    def _good(self, flight: Flight, answer: Answer, latency: float) -> None:
        outcome = self._outcome
        degraded = _DEGRADED in answer.head or b"\r\nX-Reco-Degraded:" in answer.head
        outcome.degraded += degraded
        at = answer.head.find(_SOURCE)
        if at >= 0:
            at += len(_SOURCE)
            outcome.sources[answer.head[at : answer.head.find(b"\r", at)].decode("latin-1")] += 1
        if latency <= outcome.budget_s:
            outcome.in_budget += 1
            at = int(flight.due / SLICE_S)
            outcome.good_by_slice[at] += 1
            if not degraded:
                outcome.personal_by_slice[at] += 1


def fast_loop() -> asyncio.AbstractEventLoop:
    """The loop of uvloop where there is one: it halves the generator's own cost."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - no requirement of whoever only imports this room

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()
