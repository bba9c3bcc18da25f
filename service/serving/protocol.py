"""uvicorn's HTTP protocol with bounds: on the bytes and the seconds of a request's head, its body, and its reading.

Every bound is looked at once a second for all connections (`sweep`), so a request costs no timer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

MAX_HEAD_BYTES = 16_384
HEAD_S = 5.0
BODY_S = 10.0
READING_S = 10.0
KEEP_ALIVE_S = 75
"""Longer than a proxy keeps its idle connections (nginx: 60), so that it is the proxy that closes them."""


class ServingState(ServerState):
    """What all connections of a worker share. `closing`: every answer from now on is its connection's last."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False


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

    # -- what arrives ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that grows past its bound is refused before the parser keeps more of it."""
        if not self._receiving:
            self._receiving = True
            self.since = self.loop.time()
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

    def on_headers_complete(self) -> None:
        """End a head; while closing, its answer will be the last."""
        self._in_head, self._head_ended = False, True
        self.since = self.loop.time()
        super().on_headers_complete()
        if self.server_state.closing:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End a request; what comes next is a head."""
        self._receiving, self._in_head = False, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer."""
        self.since = self.loop.time()
        super().on_response_complete()

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

    def last_answer(self) -> None:
        """Close after the answer that is under way."""
        if self.answering:
            self.cycle.keep_alive = False

    def sweep(self, now: float) -> None:
        """Drop the connection if it has taken longer than its state allows. `now`: seconds on the loop's clock."""
        if self.transport.is_closing():
            # Closed by us, with bytes that the client does not take: it would stay open for ever.
            if now - self.since > READING_S:
                self.transport.abort()
        elif self._stuck_since is not None:
            if now - self._stuck_since > READING_S:
                self.transport.abort()
        elif self._receiving:
            if now - self.since > (HEAD_S if self._in_head else BODY_S):
                self._refuse(408, b"The request took too long to arrive")
        elif self._current is None and now - self.since > HEAD_S:
            self.transport.close()

    def _refuse(self, status: int, reason: bytes) -> None:
        self._refused = True
        self.since = self.loop.time()
        if self._in_head and not self.answering:
            self.transport.write(
                b"%bcontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (STATUS_LINE[status], len(reason), reason)
            )
            self.transport.close()
        else:
            # An answer is under way or given: bytes of ours would be taken for a part of it, or of the next.
            self.transport.abort()


def sweep(state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
    """Hold every connection of a worker against its bounds."""
    now = loop.time()
    for connection in list(state.connections):
        if isinstance(connection, BoundedProtocol):
            connection.sweep(now)
