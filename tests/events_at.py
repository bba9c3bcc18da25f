"""Event logs for tests: one in a folder, with a file system that fails when told to, and events to put into it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from service.domain import Slate
from service.events.files import Files
from service.events.log import EventLog, LogOptions
from service.events.metrics import EventCounts
from service.events.reading import read_records
from service.events.schema import Feedback, Impression
from service.telemetry import Telemetry


class FaultyFiles(Files):
    """The real file system, which fails at what `failing` names, and remembers what was done in which order."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        """Name of an operation -> errno to fail with."""
        self.room: int | None = None
        """Bytes that still fit; None: any."""
        self.done: list[str] = []

    def _do(self, name: str) -> None:
        if name in self.failing:
            raise OSError(self.failing[name], os.strerror(self.failing[name]))
        self.done.append(name)

    def create(self, path: Path) -> int:
        self._do("create")
        return super().create(path)

    def append(self, descriptor: int, data: memoryview) -> int:
        self._do("append")
        if self.room is not None:
            if self.room == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: self.room]
            self.room -= len(data)
        return super().append(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        self._do("truncate")
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        self._do("sync")
        super().sync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self._do("sync_folder")
        super().sync_folder(folder)


@contextlib.asynccontextmanager
async def logging_to(
    folder: Path,
    *,
    files: Files | None = None,
    slot: int = 0,
    say: Callable[..., None] | None = None,
    telemetry: Telemetry | None = None,
    **options: Any,
) -> AsyncIterator[EventLog]:
    """A running log, closed at the end of the block."""
    counts = EventCounts(telemetry or Telemetry(budget_s=0.05))
    log = EventLog(
        folder, counts, slot=slot, options=LogOptions(**{"wait_s": 20.0, **options}), files=files, say=say
    )
    log.start()
    try:
        yield log
    finally:
        await log.close()


def feedback(event_id: str, **changes: Any) -> Feedback:
    """A view of item 10 by user 100."""
    known: dict[str, Any] = {
        "type": "view", "user_id": 100, "item_id": 10, "timestamp_ms": 1_700_000_000_000,
        "received_ms": 1_700_000_000_500, "value": 0.5,
    }  # fmt: skip
    return Feedback(event_id, **{**known, **changes})


def impression(request_id: str, **changes: Any) -> Impression:
    """A slate of two items."""
    slate = Slate([10, 12], [1.5, 0.5], "personal", 2, "popular", (), (("retrieve", 0.001),))
    return Impression(**{
        "at": 1_700_000_000.25, "request_id": request_id, "user_id": 100, "bundle_id": "b1", "model": "als",
        "slate": slate, "seconds": 0.0125, **changes,
    })  # fmt: skip


def ids_in(folder: Path) -> list[str]:
    """Event ids in the log, in the order of reading, duplicates too."""
    return [record["event_id"] for record in read_records(folder)]
