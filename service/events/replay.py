"""What the log still tells of what people did lately: for a process that kept it in memory and was replaced."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from service.domain import ItemId, UserId
from service.events.frames import MARK, Record, scan
from service.events.series import segments_in, series_in
from service.state.history import COUNTED

MOST_BYTES = 64 << 20
"""How much of the log's end is read: about half a second's work."""
_PREFIXES = tuple(MARK + kind.encode() + b'"' for kind in sorted(COUNTED))


@dataclass(frozen=True, slots=True)
class Done:
    """What somebody did, as far as their history is concerned."""

    received_ms: int
    type: str
    user_id: UserId
    item_id: ItemId


def lately_done(events: Path, *, since_ms: int, most_bytes: int = MOST_BYTES) -> Iterator[Done]:
    """Yield what was logged since a moment, oldest first, from no more than the newest `most_bytes` of the log.

    `since_ms`: Unix time. Damage is passed over. Raises InputError where there is no such folder, and OSError where a
    segment can't be read.
    """
    series = [segments_in(folder) for folder in series_in(events)]
    newest_first = sorted(
        ((path.stat().st_mtime_ns, path) for segments in series for path in segments), reverse=True
    )
    starts: dict[Path, int] = {}
    left = most_bytes
    for written_ns, path in newest_first:
        if left <= 0 or written_ns < since_ms * 1_000_000:
            break
        size = path.stat().st_size
        starts[path] = max(0, size - left)
        left -= size
    return heapq.merge(
        *(_done(segments, starts, since_ms) for segments in series), key=lambda done: done.received_ms
    )


def _done(segments: list[Path], starts: dict[Path, int], since_ms: int) -> Iterator[Done]:
    for path in segments:
        if path not in starts:
            continue
        with path.open("rb") as source:
            for found in scan(source, starts[path]):
                if not isinstance(found, Record) or not found.payload.startswith(_PREFIXES):
                    continue
                record = orjson.loads(found.payload)
                if record["received_ms"] >= since_ms:
                    yield Done(record["received_ms"], record["type"], record["user_id"], record["item_id"])
