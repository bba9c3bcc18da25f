"""A series: one writer's segments, in a folder of their own that nobody else writes to.

EVENTS/worker-0/000000000001.log, 000000000002.log, ..., lock
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from service.errors import InputError

KEYS_SUFFIX = ".keys"
"""Of the file beside a closed segment that holds its keys."""
_LOCK = "lock"
_SEGMENT = re.compile(r"([0-9]{12})\.log")
_SERIES = re.compile(r"worker-([0-9]{1,6})")
_MOST_SERIES = 4096
_DAY_S = 86_400.0


class SeriesLock:
    """The right to write to a series, held until closed or until the process dies."""

    __slots__ = ("_descriptor", "folder")

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder, self._descriptor = folder, descriptor

    def release(self) -> None:
        """Let another have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def try_lock(folder: Path) -> SeriesLock | None:
    """Take a series if nobody holds it. Raises OSError where its lock file can't be opened."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return SeriesLock(folder, descriptor)


def take_series(events: Path, slot: int) -> SeriesLock:
    """Take the series of a worker slot, or the next one that is free: of a slot's two workers one may still drain.

    Raises InputError where the folder can't be made or written to.
    """
    try:
        events.mkdir(parents=True, exist_ok=True)
        for number in range(slot, slot + _MOST_SERIES):
            folder = events / f"worker-{number}"
            folder.mkdir(exist_ok=True)
            lock = try_lock(folder)
            if lock is not None:
                return lock
    except OSError as error:
        raise InputError(f"RECO_EVENTS_DIR: cannot write events to {events}: {error.strerror}") from None
    raise InputError(f"RECO_EVENTS_DIR: every series in {events} is being written to")


def series_in(events: Path) -> list[Path]:
    """Folders of all series, by number. Raises InputError where there is no such folder."""
    if not events.is_dir():
        raise InputError(f"--events: there is no folder {events}")
    named = [(_SERIES.fullmatch(path.name), path) for path in events.iterdir()]
    return [path for found, path in sorted(((int(m[1]), p) for m, p in named if m), key=lambda pair: pair[0])]


def segments_in(series: Path) -> list[Path]:
    """Segments of a series, oldest first."""
    return sorted(path for path in series.iterdir() if _SEGMENT.fullmatch(path.name))


def next_segment(series: Path) -> Path:
    """Name of the segment after the newest."""
    segments = segments_in(series)
    last = int(segments[-1].name.removesuffix(".log")) if segments else 0
    return series / f"{last + 1:012d}.log"


def expire(series: Path, *, keep_bytes: int, keep_days: float) -> int:
    """Remove a series' oldest segments while it is above `keep_bytes`, and those last written to `keep_days` ago.

    0 keeps all. The newest segment always stays. Returns how many were removed.
    """
    closed = segments_in(series)[:-1]
    total = sum(path.stat().st_size for path in segments_in(series)) if keep_bytes else 0
    removed = 0
    for path in closed:
        state = path.stat()
        too_much = bool(keep_bytes) and total > keep_bytes
        too_old = bool(keep_days) and time.time() - state.st_mtime > keep_days * _DAY_S
        if not (too_much or too_old):
            break
        path.unlink()
        path.with_suffix(KEYS_SUFFIX).unlink(missing_ok=True)
        total -= state.st_size
        removed += 1
    return removed


@contextlib.contextmanager
def abandoned(events: Path) -> Iterator[list[Path]]:
    """Series that nobody writes to any more, held while the block runs."""
    locks = [lock for lock in map(try_lock, series_in(events)) if lock is not None]
    try:
        yield [lock.folder for lock in locks]
    finally:
        for lock in locks:
            lock.release()
