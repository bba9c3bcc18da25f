"""Who is let in when more is asked than can be answered: the young, in time; the rest is told at once to come again.

A worker answers one request at a time, so what is too much waits where no counter of requests sees it: in the sockets'
buffers. What is bounded is therefore the age of a request, measured: from when its last byte reached the kernel, or
from when a trusted proxy says that it took it. An age counts against the request's budget, too: one that can no longer
be answered in full is answered with what is popular.

Below `PRESSED_S` of unbroken work nobody can have waited, and nothing is measured.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from starlette.types import Receive, Scope, Send

from service.api.cors import Cors
from service.api.error_handlers import ErrorFamilies, fault_of
from service.api.services import RequestIds
from service.errors import Overloaded
from service.settings import Settings
from service.telemetry import Telemetry

ARRIVED_AT, AGE = "reco.arrived_at", "reco.age"
"""Keys of an ASGI scope: when the request reached this machine (seconds of `time.perf_counter`), and how old it was
when its task began."""
PRESSED_S = 0.002
_FLOOR_SHARE, _CEILING_SHARE = 0.1, 0.8
"""Of the budget. Above the ceiling not even a popular answer would come in time."""
_LEAST_FLOOR_S = 0.005
"""The kernel's tick, by which ages are measured, is up to 4 ms."""
_ADJUST_S = 0.05
_RISE = 0.05
_FALL = 0.5
_LEAST_IN_FLIGHT = 8
_BELIEVED_S = 60.0
"""A proxy's time further back than this is a wrong clock, not a request's age."""
_HEALTH = "/health"
_OPEN = frozenset({"/health", "/metrics"})
_TCP_INFO_BYTES = 56
_LAST_RECEIVED = 52


class AgeLimit:
    """How old a request may be: additive increase, multiplicative decrease between a floor and a ceiling.

    A queue that is never empty serves nobody better than a short one, it only makes all wait: so long as even the
    youngest of the last requests had waited longer than the floor, the limit is halved; else it grows back. (The
    standing queue is told from a burst by its minimum, as in Nichols and Jacobson's CoDel, 2012; the steps are those
    of TCP.)
    """

    __slots__ = ("_next", "ceiling", "floor", "seconds", "youngest")

    def __init__(self, budget_s: float) -> None:
        self.floor = max(budget_s * _FLOOR_SHARE, _LEAST_FLOOR_S)
        self.ceiling = max(budget_s * _CEILING_SHARE, self.floor)
        self.seconds = self.ceiling
        self.youngest = 0.0
        """Least age since the limit was last adjusted, seconds."""
        self._next = 0.0

    def admits(self, age: float, now: float) -> bool:
        """Whether a request of this age may be answered. `now`: seconds on any steady clock."""
        self.youngest = min(self.youngest, age)
        late = now - self._next
        if late >= 0:
            # After a pause there is nothing to judge by.
            if late < _ADJUST_S and self.youngest > self.floor:
                self.seconds = max(self.floor, self.seconds * _FALL)
            else:
                self.seconds = min(self.ceiling, self.seconds + _RISE * self.ceiling * (1 + late / _ADJUST_S))
            self.youngest, self._next = age, now + _ADJUST_S
        return age <= self.seconds


class Admission:
    """One worker's door. Called from the event loop's thread only."""

    def __init__(
        self, settings: Settings, telemetry: Telemetry, families: ErrorFamilies, ids: RequestIds
    ) -> None:
        self.limit = AgeLimit(settings.budget_s)
        self._most_in_flight = settings.max_in_flight
        self._trusted = [
            ipaddress.ip_network(word, strict=False) for word in sorted(settings.trusted_proxies)
        ]
        self._telemetry, self._families, self._ids = telemetry, families, ids
        self._cors = Cors(settings.cors_origins)
        self.tasks: Collection[object] = ()
        """Requests under way through ASGI: the server's own set of them."""
        self._turn = -1
        self._turn_began = self._worked_until = self._last_turn_s = 0.0

    # -- age ------------------------------------------------------------------------------------------------

    def trusts(self, client: tuple[str, int] | None) -> bool:
        """Whether a peer's X-Request-Start is believed."""
        if not self._trusted or client is None:
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:  # a socket in the file system
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._trusted)

    def arrived_at(self, turn: int, descriptor: int, proxy_said: bytes | None) -> float:
        """When a request that is read now reached the machine, seconds of `time.perf_counter`.

        `turn`: of the loop; it stays the same while the loop works through what it found ready. `descriptor`: the
        connection's. `proxy_said`: X-Request-Start of a trusted proxy.
        """
        now = time.perf_counter()
        if turn != self._turn:
            self._last_turn_s = self._worked_until - self._turn_began
            self._turn, self._turn_began = turn, now
        self._worked_until = now
        age = 0.0
        if now - self._turn_began > PRESSED_S or self._last_turn_s > PRESSED_S:
            age = waited(descriptor)
        if proxy_said is not None:
            age = max(age, age_by_proxy(proxy_said, time.time()))
        return now - age

    def direct(self, turn: int, descriptor: int, proxy_said: bytes | None, now: float | None = None) -> float:
        """Age in seconds of a request that is to be answered at once; -1.0 if it is too old, and then it is counted.

        Arguments as of `arrived_at`. `now`: what `time.perf_counter` says, if it was asked just before.
        """
        if proxy_said is None:
            if now is None:
                now = time.perf_counter()
            if turn != self._turn:
                self._last_turn_s = self._worked_until - self._turn_began
                self._turn, self._turn_began = turn, now
            self._worked_until = now
            if now - self._turn_began <= PRESSED_S and self._last_turn_s <= PRESSED_S:
                self.limit.youngest = 0.0
                return 0.0
        arrived_at = self.arrived_at(turn, descriptor, proxy_said)
        return time.perf_counter() - arrived_at if self.admits(arrived_at, 0) else -1.0

    def worked(self) -> None:
        """Note that answers have been made: until now the loop was busy."""
        self._worked_until = time.perf_counter()

    # -- verdict --------------------------------------------------------------------------------------------

    def admits(self, arrived_at: float, in_flight: int) -> bool:
        """Whether a request may be answered; one that may not is counted."""
        now = time.perf_counter()
        limit = self.limit
        if not limit.admits(now - arrived_at, now):
            self._telemetry.shed["age"] += 1
            return False
        if in_flight > _LEAST_IN_FLIGHT and in_flight > self._most_in_flight * limit.seconds / limit.ceiling:
            self._telemetry.shed["in_flight"] += 1
            return False
        return True

    # -- refusal --------------------------------------------------------------------------------------------

    def refusal(
        self, path: str, offered_id: bytes | None = None, origin: bytes | None = None
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of a 503, in the envelope of the path's family, for a request with these headers."""
        request_id = self._ids.of(offered_id)
        fault = fault_of(Overloaded())
        content_type, body = self._families.renderer_of(path)([fault], request_id.decode())
        said = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            *((name.lower().encode(), value.encode()) for name, value in fault.headers.items()),
            (b"x-request-id", request_id),
            *self._cors.headers(origin),
        ]
        return said, body

    async def passed(self, scope: Scope, receive: Receive, send: Send) -> bool:  # noqa: ARG002 - not read
        """Let an ASGI request through (True, its age noted in the scope), or answer it with 503 (False)."""
        arrived_at = scope.get(ARRIVED_AT)
        if arrived_at is None or scope["path"] in _OPEN or scope["path"].startswith(_HEALTH + "/"):
            return True
        if self.admits(arrived_at, len(self.tasks)):
            scope[AGE] = max(0.0, time.perf_counter() - arrived_at)
            return True
        found = dict(scope["headers"])
        headers, body = self.refusal(scope["path"], found.get(b"x-request-id"), found.get(b"origin"))
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        return False


def age_by_proxy(said: bytes, wall_now: float) -> float:
    """Seconds since the time that `X-Request-Start: t=<Unix seconds>` names; 0.0 for one that is not believed.

    Milliseconds and microseconds since 1970, as other proxies write them, are understood by their size. A time to come,
    or one long past, is a wrong clock.
    """
    text = said.removeprefix(b"t=").strip()
    if not 1 <= len(text) <= 32 or not text.replace(b".", b"", 1).isdigit():
        return 0.0
    at = float(text)
    while at > 1e11:
        at /= 1000
    age = wall_now - at
    return age if 0.0 < age <= _BELIEVED_S else 0.0


def _measured() -> Callable[[int], float]:
    """The kernel's word on when the last bytes came to a connection: Linux tells, by `tcp_info`, to its own tick."""
    if sys.platform != "linux":
        return lambda _: 0.0
    ask: Any = ctypes.PyDLL(
        None
    ).getsockopt  # holds the interpreter's lock: the call takes less than letting go of it
    answer = ctypes.create_string_buffer(_TCP_INFO_BYTES)
    room = ctypes.c_uint32()
    where = ctypes.byref(room)

    def waited(descriptor: int) -> float:
        room.value = _TCP_INFO_BYTES
        if ask(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, answer, where) != 0:
            return 0.0
        if room.value < _TCP_INFO_BYTES:
            return 0.0
        return int.from_bytes(answer.raw[_LAST_RECEIVED:_TCP_INFO_BYTES], sys.byteorder) / 1000

    return waited


waited = _measured()
"""Seconds since the last bytes came to the connection of a descriptor; 0.0 where the system does not tell."""
