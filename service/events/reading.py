"""Reading a log that may be written to meanwhile: every series, oldest first, in memory that does not grow with it."""

from __future__ import annotations

import hashlib
import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from service.events.frames import Damage, Record, scan
from service.events.schema import identity, is_slate
from service.events.series import segments_in, series_in

_CACHE_KIB = 65_536
_ALWAYS = {"type", "event_id", "user_id", "timestamp_ms"}


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes of a segment that are no record: `file` is relative to the log's folder, `offset` and `bytes` as in it."""

    file: str
    offset: int
    bytes: int
    reason: str


OnDamage = Callable[[Broken], None]


class Distinct:
    """Says of each name whether it is new. Exact; on disk beyond a bounded cache, in a file that nobody sees."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def is_new(self, name: str) -> bool:
        """Whether this is the first time; it is remembered."""
        key = hashlib.blake2b(name.encode(), digest_size=16).digest()
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()


def logged_at(record: Mapping[str, Any]) -> int:
    """When a decoded record came to the log, milliseconds of Unix time."""
    at: int = record.get("received_ms") or record["timestamp_ms"]
    return at


def read_records(events: Path, on_damage: OnDamage | None = None) -> Iterator[dict[str, Any]]:
    """Yield every decoded record, duplicates too, by the time it was logged.

    What is no record is handed to `on_damage`, and reading goes on behind it. A torn end that may be a record being
    written just now is passed over. Raises InputError where there is no such folder.
    """
    return heapq.merge(*(_series_records(series, on_damage) for series in series_in(events)), key=logged_at)


def distinct_records(events: Path, on_damage: OnDamage | None = None) -> Iterator[dict[str, Any]]:
    """Yield every decoded record once, the earliest of those that share an id."""
    with Distinct() as names:
        for record in read_records(events, on_damage):
            if names.is_new(identity(record)):
                yield record


def _series_records(series: Path, on_damage: OnDamage | None) -> Iterator[dict[str, Any]]:
    segments = segments_in(series)
    for path in segments:
        for found in _scan(path):
            if isinstance(found, Record):
                record = _decoded(found)
                if record is not None:
                    yield record
                    continue
                found = _no_event(found)  # noqa: PLW2901 - damage of another kind
            if on_damage is not None and not (found.at_end and path == segments[-1]):
                on_damage(_broken(path, found))


def _scan(path: Path) -> Iterator[Record | Damage]:
    try:
        source = path.open("rb")
    except FileNotFoundError:  # its time had come
        return
    with source:
        yield from scan(source)


def _decoded(found: Record) -> dict[str, Any] | None:
    """Decode a record; None where its bytes are as they were written and yet no event."""
    try:
        record: dict[str, Any] = orjson.loads(found.payload)
    except orjson.JSONDecodeError:
        return None
    return record if record.keys() >= _ALWAYS else None


def _no_event(found: Record) -> Damage:
    return Damage(found.offset, found.end - found.offset, "not an event", at_end=False)


def _broken(path: Path, damage: Damage) -> Broken:
    return Broken(f"{path.parent.name}/{path.name}", damage.offset, damage.size, damage.reason)


@dataclass(slots=True)
class Summary:
    """What verification found. `torn`: ends cut short in the newest segments, which the next start removes."""

    records: int = 0
    duplicates: int = 0
    types: dict[str, int] = field(default_factory=dict)
    series: int = 0
    segments: int = 0
    bytes: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    corrupt: list[Broken] = field(default_factory=list)
    torn: list[Broken] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def verify(events: Path, progress: Callable[[Path], None] = lambda _: None) -> Summary:
    """Read all of it and count. Raises InputError where there is no such folder."""
    summary = Summary()
    with Distinct() as names:
        for series in series_in(events):
            summary.series += 1
            segments = segments_in(series)
            for path in segments:
                progress(path)
                summary.segments += 1
                for found in _scan(path):
                    if isinstance(found, Record):
                        summary.bytes += found.end - found.offset
                        record = _decoded(found)
                        if record is None:
                            summary.corrupt.append(_broken(path, _no_event(found)))
                        else:
                            _count(summary, record, names)
                    else:
                        summary.bytes += found.size
                        torn = found.at_end and path == segments[-1]
                        (summary.torn if torn else summary.corrupt).append(_broken(path, found))
    return summary


def _count(summary: Summary, record: Mapping[str, Any], names: Distinct) -> None:
    kind, at = "slate" if is_slate(record) else str(record["type"]), logged_at(record)
    summary.records += 1
    summary.types[kind] = summary.types.get(kind, 0) + 1
    if not names.is_new(identity(record)):
        summary.duplicates += 1
    summary.first_ms = at if summary.first_ms is None else min(summary.first_ms, at)
    summary.last_ms = at if summary.last_ms is None else max(summary.last_ms, at)


class Follower:
    """Goes on where it stopped: what each call yields was not there at the call before."""

    def __init__(self, events: Path) -> None:
        self._events = events
        self._places: dict[Path, int] = {}

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield records logged since, by the time they were. Raises InputError where there is no such folder."""
        return heapq.merge(*(self._news_of(series) for series in series_in(self._events)), key=logged_at)

    def _news_of(self, series: Path) -> Iterator[dict[str, Any]]:
        segments = segments_in(series)
        for path in segments:
            start = self._places.get(path, 0)
            try:
                if path.stat().st_size == start:
                    continue
                source = path.open("rb")
            except FileNotFoundError:
                continue
            with source:
                for found in scan(source, start):
                    if isinstance(found, Record):
                        self._places[path] = found.end
                        record = _decoded(found)
                        if record is not None:
                            yield record
                    elif not found.at_end:
                        self._places[path] = found.offset + found.size
        for gone in [path for path in self._places if path.parent == series and path not in segments]:
            del self._places[gone]


def lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Each record as a line of JSON."""
    return (orjson.dumps(record) + b"\n" for record in records)
