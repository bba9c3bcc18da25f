"""uvicorn's HTTP protocol with bounds: on the bytes and the seconds of a request's head, its body, and its reading.

Every bound is looked at once a second for all connections (`sweep`), so a request costs no timer.

A plain GET of the hot route is answered where its head ends, by one write at the end of the loop's turn: no task, no
event, no ASGI messages. (A write wakes the client's processor, which costs the writer more than the copying; answers
written one after the other find it awake.) It is the same endpoint with the same bytes; whatever is not plain (another
method, a body, HTTP/1.0, an upgrade, a second request in the same packet, a client that does not read, a worker that
drains, an answer that must be waited for) takes uvicorn's way through ASGI.

A client that keeps its connection sends the same head again, but for its first line. A connection knows the head that
was answered last by its digest: one that comes again is not parsed again. All that follows from it is decided anew.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.api.admission import ARRIVED_AT, Admission
from service.api.head import Head

MAX_HEAD_BYTES = 16_384
HEAD_S = 5.0
BODY_S = 10.0
READING_S = 10.0
LINGER_S = 2.0
"""Given to a refused client to read why: a socket closed while bytes are on their way to it answers them with a reset,
which throws away what the client has not read yet."""
LINGER_BYTES = 4 * MAX_HEAD_BYTES
KEEP_ALIVE_S = 75
"""Longer than a proxy keeps its idle connections (nginx: 60), so that it is the proxy that closes them."""

HOT = b"/reco/"
_SPECIAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"x-request-start"})
"""Headers that this layer reads. All but the last make a request one that is not plain."""

_LOOKED_AT_AT_ONCE, _DROPPED_AT_ONCE = 64, 2
"""Connections in a turn of the loop: looked at, and dropped, which takes some hundred microseconds each."""
HELD, HELD_S = 16, 0.001
"""Most answers that wait for the end of the loop's turn, and for how long."""

_HOT_LINE = b"GET " + HOT
_PLAIN_LINE = re.compile(rb"GET (/reco/[\w.~%/?=&:,;@!$'()*+-]*) HTTP/1\.1")
"""A first line that the parser would take as it stands."""
_LOOKS = 4
"""Heads in a row that differ from the one before, after which a connection's heads are not looked at any more."""

Headers = list[tuple[bytes, bytes]]


Write = Callable[[int, bytes], None]
"""Hands one whole answer to the connection: its status, and the head after the server's own headers with the body."""
HotDoor = Callable[[bytes, Head, str, Write, float], bool]
"""The hot endpoint as a plain call: URL, head, scheme, write, age in seconds. True: `write` was called once. False:
nothing was done; ask through ASGI."""


class ServingState(ServerState):
    """What all connections of a worker share. `closing`: every answer from now on is its connection's last."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.admission: Admission | None = None
        self._outbox: list[tuple[asyncio.Transport, bytes]] = []
        self._held_since = 0.0
        self._flushes = False
        self.turn = 0
        """Of the loop, as far as answers were held in it."""
        self._leads: dict[int, bytes] = {}
        self._leads_of: Headers | None = None

    def hold(
        self, transport: asyncio.Transport, answer: bytes, began: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Write an answer with the others of this turn of the loop.

        `began`: when it was begun, seconds of `time.perf_counter`.
        """
        outbox = self._outbox
        if not outbox:
            self._held_since = began
            if not self._flushes:
                self._flushes = True
                loop.call_soon(self._end_turn)
        outbox.append((transport, answer))
        if len(outbox) >= HELD or began - self._held_since > HELD_S:
            self.flush()

    def flush(self) -> None:
        """Write all that is held."""
        outbox, self._outbox = self._outbox, []
        for transport, answer in outbox:
            transport.write(answer)

    def _end_turn(self) -> None:
        self._flushes = False
        self.turn += 1
        self.flush()
        if self.admission is not None:
            self.admission.worked()

    def lead(self, status: int) -> bytes:
        """Status line and the headers that the server puts first in every answer."""
        if self._leads_of is not self.default_headers:  # a new list each second: the date
            self._leads, self._leads_of = {}, self.default_headers
        lead = self._leads.get(status)
        if lead is None:
            lead = self._leads[status] = STATUS_LINE[status] + b"".join(
                [b"%b: %b\r\n" % header for header in self.default_headers]
            )
        return lead


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    server_state: ServingState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_ended = False
        self._head_bytes = 0
        self._refused = False
        self.since = self.loop.time()
        """When this connection last changed its state: made, a request begun, its head read, answered."""
        self._receiving = False
        self._stuck_since: float | None = None
        self._door: HotDoor | None = None if self.root_path else getattr(self.app, "answer_now", None)
        self._plain = self._direct = False
        self._direct_left = False
        """Whether the next request of this packet may be answered directly: one may, so that no client holds the
        loop with a thousand in one packet."""
        self._answered = False
        self._began = 0.0
        """When the request that is answered directly was begun, seconds of `time.perf_counter`."""
        self._looks = _LOOKS
        self._digest = b""
        """SHA-256 of the last whole packet after its first line: a head's headers, if `_head` says so."""
        self._head: Head | None = None
        """What those headers say; None: they are not to be taken unparsed."""
        self._last: Head | None = None
        """The head that was answered directly in this packet."""
        self._begun = 0
        """Requests that began in this packet."""
        self._descriptor = -1
        self._trusted = False
        self._proxy_said: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Take the transport, and note of it what admission asks for."""
        super().connection_made(transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        admission = self.server_state.admission
        if admission is not None:
            self._trusted = admission.trusts(self.client)

    # -- what arrives ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that grows past its bound is refused before the parser keeps more of it."""
        if self._refused:
            self._head_bytes += len(data)  # lingering: what still comes is nobody's
            if self._head_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        looked = False
        if not self._receiving:
            if self._looks and data.startswith(_HOT_LINE) and len(data) <= MAX_HEAD_BYTES:
                if self._answers_again(data):
                    return
                looked = True
            self._receiving = True
            self.since = self.loop.time()
        self._direct_left = True
        self._begun, self._last = 0, None
        while data and not self._refused and not self.transport.is_closing():
            if not self._in_head:
                super().data_received(data)
                return
            room = MAX_HEAD_BYTES - self._head_bytes
            if room <= 0:
                self._refuse(431, b"The request's head is too long")
                return
            part, data = (data, b"") if len(data) <= room else (data[:room], data[room:])
            self._head_ended = False
            super().data_received(part)
            # After a head's end the count begins anew; what of the next head came with it is forgiven.
            self._head_bytes = 0 if self._head_ended else self._head_bytes + len(part)
        if looked and self._begun == 1 and not self._receiving:
            self._head = self._last  # the packet was one request, and no more

    def on_message_begin(self) -> None:
        """Begin a request; its ASGI scope is made once it is known to need one."""
        self._receiving = True  # also where it began in the packet that ended another
        self._begun += 1
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._plain = True
        self._proxy_said = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        name = name.lower()
        if name in _SPECIAL:
            if name == b"x-request-start":
                self._proxy_said = value if self._trusted else None
            else:
                self._plain = False
                if name == b"expect" and value.lower() == b"100-continue":
                    self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """End a head; while closing, its answer will be the last."""
        self._in_head, self._head_ended = False, True
        if self._may_be_direct():
            self._direct = True
        else:
            self._take_through_asgi()

    def on_message_complete(self) -> None:
        """End a request; what comes next is a head."""
        self._receiving, self._in_head = False, True
        if self._direct:
            self._direct = self._direct_left = False
            head = Head(self.headers)
            if self._answer_directly(self.url, head):
                if self._proxy_said is None:
                    self._last = head
                self.headers = []
                return
            self._take_through_asgi()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer. uvicorn's own method, less its timer a request: `sweep` closes what stays idle."""
        self.since = self.loop.time()
        self.server_state.total_requests += 1
        if self.server_state.admission is not None:
            self.server_state.admission.worked()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    # -- the two ways to an answer --------------------------------------------------------------------------

    def _answers_again(self, data: bytes) -> bool:
        """Answer a packet that is a request with the head that was answered last. False: nothing was done."""
        line, _, headers = data.partition(b"\r\n")
        digest = sha256(headers).digest()
        head = self._head
        if digest != self._digest or head is None:
            self._looks -= 1
            self._digest, self._head = digest, None
            return False
        self._looks, self._proxy_said = _LOOKS, None
        asked = _PLAIN_LINE.fullmatch(line)
        return (
            asked is not None
            and self._may_write()
            and not self.transport.is_closing()
            and self._answer_directly(asked[1], head)
        )

    def _may_be_direct(self) -> bool:
        url = self.url
        return (
            self._plain
            and self._direct_left
            and self._door is not None
            and url.startswith(HOT)
            and url.isascii()
            and b"#" not in url
            and self.parser.get_method() == b"GET"
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and self._may_write()
        )

    def _may_write(self) -> bool:
        """Whether an answer given now is the next that is due, none is the last, and the client reads."""
        current = self._current
        return (
            not self.server_state.closing
            and self._stuck_since is None
            and not self.pipeline
            and (current is None or current.response_complete)
        )

    def _answer_directly(self, url: bytes, head: Head) -> bool:
        assert self._door is not None  # one may answer directly only where there is one
        assert self.scheme is not None
        state, age = self.server_state, 0.0
        admission = state.admission
        self._began = began = time.perf_counter()
        try:
            if admission is not None:
                age = admission.direct(state.turn, self._descriptor, self._proxy_said, began)
                if age < 0:
                    headers, body = admission.refusal(HOT.decode(), head.request_id, head.origin)
                    self._write(503, b"".join([b"%b: %b\r\n" % one for one in headers]) + b"\r\n" + body)
                    return True
            return self._door(url, head, self.scheme, self._write, age)
        except Exception:
            # The endpoint answers its own faults; what is left can't be told to the client any more.
            logging.getLogger(__name__).exception("a direct answer broke")
            self.transport.abort()
            return True

    def _write(self, status: int, rest: bytes) -> None:
        state = self.server_state
        state.hold(self.transport, state.lead(status) + rest, self._began, self.loop)
        state.total_requests += 1
        self.since = self.loop.time()
        self._answered = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, after the answers that came before it."""
        self.server_state.flush()
        super().send_400_response(msg)

    def _take_through_asgi(self) -> None:
        self.since = self.loop.time()
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        admission = self.server_state.admission
        if admission is not None:
            arrived_at = admission.arrived_at(self.server_state.turn, self._descriptor, self._proxy_said)
            self.scope[ARRIVED_AT] = arrived_at  # type: ignore[literal-required]  # ours, not of the specification
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        if self.server_state.closing:
            self.cycle.keep_alive = False

    # -- the client's pace ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Note that the client stopped reading."""
        self._stuck_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        self._stuck_since = None
        super().resume_writing()

    # -- bounds ---------------------------------------------------------------------------------------------

    @property
    def answering(self) -> bool:
        """Whether a request's answer is owed or not yet whole."""
        current = self._current
        return bool(self.pipeline) or (current is not None and not current.response_complete)

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The newest request, answered or not; before the first there is none, whatever uvicorn's annotation says."""
        return self.cycle

    @property
    def idle(self) -> bool:
        """Whether no request is under way here, in either direction."""
        return not self._receiving and not self.answering

    @property
    def at_rest(self) -> bool:
        """Whether all that was read is answered, and every answer written: another process could go on from here."""
        return (
            self.idle
            and not self._refused
            and not self.transport.is_closing()
            and self.transport.get_write_buffer_size() == 0
        )

    @property
    def used(self) -> bool:
        """Whether a request has come over this connection."""
        return self._answered or self._current is not None

    def go_on(self) -> None:
        """Take up a connection that another process has answered on: it may be idle as long as any."""
        self._answered = True

    def last_answer(self) -> None:
        """Close after the answer that is under way."""
        if self.answering:
            self.cycle.keep_alive = False

    def sweep(self, now: float) -> bool:
        """Drop the connection if it has taken longer than its state allows, and say whether it had.

        `now`: seconds on the loop's clock.
        """
        waited = now - self.since
        if self._refused or self.transport.is_closing():
            # Closed by us, with bytes that the client does not take, or sends: it would stay open for ever.
            late = waited > (LINGER_S if self._refused else READING_S)
            if late:
                self.transport.abort()
        elif self._stuck_since is not None:
            late = now - self._stuck_since > READING_S
            if late:
                self.transport.abort()
        elif self._receiving:
            late = waited > (HEAD_S if self._in_head else BODY_S)
            if late:
                self._refuse(408, b"The request took too long to arrive")
        else:
            idle = self._current is not None or self._answered
            late = waited > (KEEP_ALIVE_S if idle else HEAD_S) and not (idle and self.answering)
            if late:
                self.transport.close()
        return late

    def _refuse(self, status: int, reason: bytes) -> None:
        self._refused = True
        self.since = self.loop.time()
        self.server_state.flush()
        if self._in_head and not self.answering:
            self.transport.write(
                b"%bcontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (STATUS_LINE[status], len(reason), reason)
            )
            self._receiving = False
            self.transport.write_eof()  # the client's own end, or `sweep`, closes the connection
        else:
            # An answer is under way or given: bytes of ours would be taken for a part of it, or of the next.
            self.transport.abort()


async def sweep(connections: Sequence[object]) -> None:
    """Hold connections against their bounds.

    Many may have passed theirs at once, each to be told: the loop turns after a few of those, so that requests
    wait for no more than a few, and after some dozens of others.
    """
    loop = asyncio.get_running_loop()
    looked = dropped = 0
    now = loop.time()
    for connection in connections:
        if not isinstance(connection, BoundedProtocol):
            continue
        looked += 1
        dropped += connection.sweep(now)
        if looked >= _LOOKED_AT_AT_ONCE or dropped >= _DROPPED_AT_ONCE:
            await asyncio.sleep(0)
            looked = dropped = 0
            now = loop.time()
