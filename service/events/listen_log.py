"""Botify's data log: a line of JSON for every track that was asked for and every session's last, for its notebooks.

Keys in botify's order: message, timestamp (ms), user, track, time, latency (s), recommendation, experiments. The
request leaves a tuple in a bounded queue; a thread writes whole lines. All workers of a host write one file, one at
a time under a lock beside it, which also keeps its rotation single.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from service.errors import InputError

MAX_BYTES = 100 << 20
BACKUPS = 10
CAPACITY = 65_536
"""Lines that may wait for the disk."""
_PERIOD_S = 0.1
_BATCH = 4096
_STOP_S = 10.0

Say = Callable[..., None]
"""`say(level, message, **fields)`."""


class Datum(NamedTuple):
    """One line. `latency` in seconds; `experiments`: name -> treatment."""

    message: Literal["next", "last"]
    timestamp: int
    user: int
    track: int
    time: float
    latency: float
    recommendation: int | None
    experiments: Mapping[str, str]


class ListenLog:
    """Call `log` from the event loop; it never blocks. What the disk does not take is tried again."""

    def __init__(
        self, path: Path, *, max_bytes: int = MAX_BYTES, backups: int = BACKUPS, say: Say | None = None
    ) -> None:
        """Raises InputError where the file can't be written."""
        self.path, self._max_bytes, self._backups = path, max_bytes, backups
        self._say = say or (lambda *_, **__: None)
        self._queue: deque[Datum] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self._file = self._lock = -1
        self.written = 0
        self.dropped = 0
        """Lines that were lost because the queue was full, or the disk still refused them at the end."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(_open(path))
        except OSError as error:
            raise InputError(f"RECO_BOTIFY_LOG={path}: {error.strerror}") from None

    def start(self) -> None:
        """Start the writer."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="listen-log", daemon=True)
        self._thread.start()

    def log(self, datum: Datum) -> None:
        """Queue a line."""
        if len(self._queue) >= CAPACITY:
            self.dropped += 1
        else:
            self._queue.append(datum)

    def stop(self) -> None:
        """Write what is queued and end the writer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=_STOP_S)
            self._thread = None

    def take_dropped(self) -> int:
        """Count the lines lost since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_PERIOD_S):
                self._drain()
            self._drain()
        finally:
            self.dropped += len(self._queue)
            self._close()

    def _drain(self) -> None:
        while self._queue:
            count = min(len(self._queue), _BATCH)
            lines = [_line(self._queue[place]) for place in range(count)]
            try:
                done = self._write(lines)
            except OSError as error:
                if not self._failing:
                    self._say("ERROR", "the data log can't be written; its lines wait", error=error)
                self._failing = True
                self._close()
                return
            for _ in range(done):
                self._queue.popleft()
            self.written += done
            self._failing = False

    def _write(self, lines: list[bytes]) -> int:
        """Append lines, all of them or those that fit into the file; returns how many. Raises OSError, nothing torn."""
        if self._lock < 0:
            self._lock = _open(self.path.with_name(self.path.name + ".lock"))
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            size = self._reopen()
            if size and size + len(lines[0]) >= self._max_bytes:
                self._rotate()
                size = self._reopen()
            chunk, count = lines[0], 1
            while count < len(lines) and size + len(chunk) + len(lines[count]) < self._max_bytes:
                chunk += lines[count]
                count += 1
            try:
                _write_all(self._file, chunk)
            except OSError:
                os.ftruncate(self._file, size)
                raise
            return count
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _reopen(self) -> int:
        """Have the file of this name open, whoever rotated it; returns its size."""
        if self._file >= 0:
            try:
                named, ours = self.path.stat(), os.fstat(self._file)
            except FileNotFoundError:
                pass
            else:
                if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino):
                    return ours.st_size
            os.close(self._file)
            self._file = -1
        self._file = _open(self.path)
        return os.fstat(self._file).st_size

    def _rotate(self) -> None:
        """`data.json` becomes `data.json.1`, and so on; the oldest goes."""
        for number in range(self._backups, 0, -1):
            older = self._numbered(number)
            newer = self.path if number == 1 else self._numbered(number - 1)
            if newer.exists():
                newer.replace(older)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _line(datum: Datum) -> bytes:
    document: dict[str, Any] = datum._asdict()
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
