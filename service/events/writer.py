"""The one writer of a series. Synchronous; its thread owns it."""

from __future__ import annotations

import errno
import os
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.events.files import Files
from service.events.frames import Record, scan
from service.events.keys import key_in, store_keys
from service.events.series import next_segment, segments_in
from service.events.turns import in_turns

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening a series found. `cut_bytes`: torn end of the newest segment, removed. `damaged`: its segment's name
    if whole records follow what can't be read: it is left as it is, and a new segment begun."""

    cut_bytes: int = 0
    damaged: str | None = None


class InDoubt(Exception):
    """A sync or a clean-up failed: what is on the disk, nobody knows. Only reading it again tells."""


class SegmentWriter:
    """Appends whole frames. A whole frame, once written, is never taken back; a part of one always is."""

    def __init__(self, series: Path, *, segment_bytes: int, files: Files) -> None:
        self._series, self._segment_bytes, self._files = series, segment_bytes, files
        self._descriptor = -1
        self._path: Path | None = None
        self._size = 0
        self._began = 0.0
        self.keys = array("Q")
        """Keys of the newest segment's feedback; whoever has synced some adds them."""

    def open(self) -> Recovered:
        """Go on with the newest segment, without its torn end. Raises OSError.

        All that is kept is on the disk when this returns: what the last writer wrote may not have been.
        """
        segments = segments_in(self._series)
        if not segments:
            self._begin()
            return Recovered()
        newest = segments[-1]
        end = cut = 0
        damaged = False
        with newest.open("rb") as source:
            for found in in_turns(scan(source)):
                if isinstance(found, Record):
                    end = found.end
                    key = key_in(found.payload)
                    if key is not None:
                        self.keys.append(key)
                elif found.at_end:
                    cut = found.size
                else:
                    damaged = True
        self._descriptor, self._path = self._files.open(newest), newest
        if damaged:
            self.rotate()
            return Recovered(damaged=f"{newest.parent.name}/{newest.name}")
        if cut:
            self._files.truncate(self._descriptor, end)
        self._files.sync(self._descriptor)
        self._files.sync_folder(self._series)
        self._size, self._began = end, newest.stat().st_mtime
        return Recovered(cut)

    @property
    def size(self) -> int:
        """Bytes in the newest segment."""
        return self._size

    def write(self, frames: Sequence[bytes]) -> None:
        """Append frames.

        Raises OSError; then those before the one that failed are kept, and no part of it. Or else InDoubt.
        """
        data = memoryview(b"".join(frames))
        written = 0
        try:
            while written < len(data):
                written += self._files.append(self._descriptor, data[written:])
        except OSError:
            kept = 0
            for one in frames:
                if kept + len(one) > written:
                    break
                kept += len(one)
            self._size += kept
            if kept < written:
                self._cut()
            raise
        self._size += written

    def sync(self) -> None:
        """Return once all that was written is on the disk. Raises InDoubt."""
        try:
            self._files.sync(self._descriptor)
        except OSError as error:
            raise InDoubt(f"sync failed: {error.strerror}") from error

    def wants_rotation(self) -> bool:
        """Whether the newest segment is full, or a day old."""
        return self._size >= self._segment_bytes or (self._size > 0 and time.time() - self._began > _DAY_S)

    def rotate(self) -> None:
        """Begin a new segment; the old one is synced first. Raises InDoubt; or OSError, and the old one goes on."""
        self.sync()
        closed, keys = self._path, self.keys
        self._begin()
        if closed is not None:
            store_keys(closed, keys)

    def close(self) -> None:
        """Sync and close. Raises InDoubt."""
        if self._descriptor >= 0:
            try:
                self.sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _cut(self) -> None:
        try:
            self._files.truncate(self._descriptor, self._size)
        except OSError as error:
            raise InDoubt(f"a part of a record could not be removed: {error.strerror}") from error

    def _begin(self) -> None:
        path = next_segment(self._series)
        descriptor = self._files.create(path)
        try:
            # A record is only as durable as the name of the file it is in.
            self._files.sync_folder(self._series)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._path, self._size, self._began = descriptor, path, 0, time.time()
        self.keys = array("Q")
