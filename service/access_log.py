"""The log: a request leaves a tuple in a bounded queue; a thread of its own makes JSON lines of them and writes.

Keys of a request's line are those of the course template (`time`, `level`, `service_name`, `logger`, `pid`, `method`,
`requested_url`, `status_code`, `request_time` in seconds) and `request_id`, `model`, `source`, `degraded`. Header
values are never logged, nor are values of query parameters other than those in `SHOWN_PARAMETERS`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import orjson

SERVICE_NAME = "reco_service"
CAPACITY = 16_384
_PERIOD_S = 0.05
# One write of at most this many bytes is atomic on a pipe, so workers that share one never mix their lines.
_PIPE_BUF = 4096
SHOWN_PARAMETERS = frozenset({"k", "user_id", "top_k", "id"})
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class RequestRecord(NamedTuple):
    """One request as it was answered. `at` is Unix time in seconds; `seconds` is how long it took."""

    at: float
    method: str
    scheme: str
    host: bytes
    raw_path: bytes
    query: bytes
    status: int
    seconds: float
    request_id: bytes
    model: str | None
    source: str | None
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something worth saying that is no request."""

    at: float
    level: str
    message: str
    fields: Mapping[str, Any]
    error: BaseException | None


class AccessLog:
    """The queue and its writer. Call from the event loop; nothing here blocks or formats."""

    def __init__(self, *, descriptor: int, level: str, requests: bool, show_user_ids: bool) -> None:
        """`descriptor`: where lines go. `requests` False: only events."""
        self._descriptor, self._least = descriptor, _LEVELS[level]
        self.requests = requests and self._least <= _LEVELS["INFO"]
        self._salt = None if show_user_ids else secrets.token_bytes(16)
        self._queue: deque[RequestRecord | EventRecord] = deque()
        self._pid = os.getpid()
        self._second, self._second_text = -1, b""
        self._stopping = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Lines lost since `take_dropped` was last called."""

    def request(self, record: RequestRecord) -> None:
        """Queue a request's line; counted as dropped when the queue is full."""
        if len(self._queue) >= CAPACITY:
            self.dropped += 1
        else:
            self._queue.append(record)

    def event(
        self, at: float, level: str, message: str, *, error: BaseException | None = None, **fields: Any
    ) -> None:
        """Queue anything else; an error's traceback is formatted by the writer."""
        if _LEVELS[level] < self._least:
            return
        if len(self._queue) >= CAPACITY:
            self.dropped += 1
        else:
            self._queue.append(EventRecord(at, level, message, fields, error))
            if not self.requests:
                self._wake.set()

    def take_dropped(self) -> int:
        """Count the lines lost since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def start(self) -> None:
        """Start the writer."""
        self._pid = os.getpid()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued and end the writer; gives up after two seconds on a reader that doesn't read."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
            self._thread = None

    def write_now(self) -> None:
        """Write what is queued, here: for a process that runs no thread."""
        self._drain()

    def _run(self) -> None:
        # Each time it wakes it takes the interpreter from requests, so without requests to log it sleeps until it is
        # told of an event.
        period = _PERIOD_S if self.requests else None
        while not self._stopping:
            self._wake.wait(period)
            self._wake.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        chunk = b""
        while self._queue:
            record = self._queue.popleft()
            try:
                line = self._line(record)
            except Exception as error:
                line = orjson.dumps(
                    {"level": "ERROR", "logger": "log", "message": f"unprintable record: {error!r}"}
                )
            if chunk and len(chunk) + len(line) + 1 > _PIPE_BUF:
                self._write(chunk)
                chunk = b""
            chunk += line + b"\n"
        if chunk:
            self._write(chunk)

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:  # the reader is gone; serving goes on
            self.dropped += chunk.count(b"\n")

    def _line(self, record: RequestRecord | EventRecord) -> bytes:
        if isinstance(record, RequestRecord):
            return self._request_line(record)
        document = {
            "time": self._time(record.at).decode(),
            "level": record.level,
            "service_name": SERVICE_NAME,
            "logger": "service",
            "pid": self._pid,
            "message": record.message,
            **record.fields,
        }
        if record.error is not None:
            document["traceback"] = "".join(traceback.format_exception(record.error))
        return orjson.dumps(document, default=str)

    def _request_line(self, record: RequestRecord) -> bytes:
        line = (
            b'{"time":"%b","level":"INFO","service_name":"%b","logger":"access","pid":%d,"method":%b,'
            b'"requested_url":%b,"status_code":%d,"request_time":%.6f,"request_id":"%b"'
            % (
                self._time(record.at), SERVICE_NAME.encode(), self._pid, orjson.dumps(record.method),
                orjson.dumps(self._url(record)), record.status, record.seconds, record.request_id,
            )
        )  # fmt: skip
        if record.model is not None:
            line += b',"model":%b' % orjson.dumps(record.model)
        if record.source is not None:
            line += b',"source":%b' % orjson.dumps(record.source)
        if record.degraded:
            line += b',"degraded":%b' % orjson.dumps(record.degraded)
        return line + b"}"

    def _time(self, at: float) -> bytes:
        """Write a time as ISO 8601 in UTC with milliseconds; the part up to the second is kept for its neighbours."""
        second = int(at)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        return b"%b.%03dZ" % (self._second_text, int((at - second) * 1000))

    def _url(self, record: RequestRecord) -> str:
        path = record.raw_path[:2048]
        if self._salt is not None and path.startswith(b"/reco/"):
            head, slash, user_id = path.rpartition(b"/")
            path = head + slash + hashlib.blake2b(user_id, key=self._salt, digest_size=8).hexdigest().encode()
        url = f"{record.scheme}://{record.host.decode('latin-1')}{path.decode('latin-1')}"
        if not record.query:
            return url
        shown = SHOWN_PARAMETERS if self._salt is None else SHOWN_PARAMETERS - {"user_id", "id"}
        pairs = parse_qsl(record.query[:2048].decode("latin-1"), keep_blank_values=True)
        return (
            f"{url}?{urlencode([(name, value if name in shown else '…') for name, value in pairs], safe='…')}"
        )
