"""Opens whatever holds a log, as one lazy table: the service's folder, an export of it, or botify's data.json."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from models.events_table import SCHEMA, write_records
from service.errors import DataError, InputError
from service.events.reading import Broken, distinct_records

BOTIFY_LOG = "data.json"
_BOTIFY_KEYS = frozenset({"message", "timestamp", "user", "track", "time", "latency", "experiments"})
_NEEDED = frozenset({"type", "event_id", "user_id", "timestamp_ms"})


@dataclass(frozen=True, slots=True)
class Log:
    """The log as `models.events_table.SCHEMA`, a row a record, read in streams.

    A line of botify's log is a `view` (its `last` a `last`) whose value is the share listened to, with the latency and
    the treatments on the same row. `damaged`: what of a folder could not be read and is left out.
    """

    events: pl.LazyFrame
    damaged: tuple[Broken, ...] = ()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Log]:
    """Open a log: a folder of segments, a .parquet or .jsonl export, botify's data.json or a folder with it.

    What is no Parquet is first written as Parquet into a folder that goes at the end of the block, so memory does not
    grow with the log. Raises InputError where there is nothing, and for a Parquet file with other columns; DataError
    naming file, row and key for a line that is no record.
    """
    if path.suffix == ".parquet" and path.is_file():
        yield Log(_parquet(path))
        return
    damaged: list[Broken] = []
    with tempfile.TemporaryDirectory(prefix="reco-analysis-") as folder:
        table = Path(folder) / "events.parquet"
        write_records(_records(path, damaged), table)
        yield Log(pl.scan_parquet(table), tuple(damaged))


def collected(table: pl.LazyFrame) -> pl.DataFrame:
    """Run a query batch by batch."""
    return table.collect(engine="streaming")


def _parquet(path: Path) -> pl.LazyFrame:
    try:
        table = pl.scan_parquet(path)
        found = table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"--events: {path} can't be read as Parquet: {error}") from None
    for name, dtype in SCHEMA.items():
        if name not in found:
            raise InputError(f"--events: {path} has no column {name!r}; `reco events export` writes all")
        # A column without a value anywhere may have come without its type.
        if found[name] not in {dtype, pl.Null()}:
            raise InputError(f"--events: {path}, column {name!r}: {found[name]}, must be {dtype}")
    return table.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def _records(path: Path, damaged: list[Broken]) -> Iterable[Mapping[str, Any]]:
    if path.is_dir():
        pieces = _rotated(path / BOTIFY_LOG)
        return _lines(pieces) if pieces else distinct_records(path, damaged.append)
    if not path.is_file():
        raise InputError(f"--events: there is no {path}")
    return _lines([path])


def _rotated(newest: Path) -> list[Path]:
    """Botify's log with its older pieces (data.json.1 is the newest of those), oldest first; empty if there is none."""
    if not newest.is_file():
        return []
    older = [p for p in newest.parent.glob(f"{newest.name}.*") if p.suffix[1:].isdecimal()]
    return [*sorted(older, key=lambda piece: -int(piece.suffix[1:])), newest]


def _lines(pieces: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    for piece in pieces:
        with piece.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _record(line, piece, number)


def _record(line: bytes, file: Path, number: int) -> Mapping[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(file, f"not JSON: {error}", row=number) from None
    if not isinstance(record, dict):
        raise DataError(file, "not a JSON object", row=number)
    if "message" in record:
        return _of_botify(record, file, number)
    for key in _NEEDED - record.keys():
        raise DataError(file, "missing key", row=number, column=key)
    if type(record["timestamp_ms"]) is not int:
        raise DataError(
            file,
            "must be whole milliseconds of Unix time",
            row=number,
            column="timestamp_ms",
            value=record["timestamp_ms"],
        )
    return record


def _of_botify(record: Mapping[str, Any], file: Path, number: int) -> Mapping[str, Any]:
    for key in sorted(_BOTIFY_KEYS - record.keys()):
        raise DataError(file, "missing key", row=number, column=key)
    if record["message"] not in {"next", "last"}:
        raise DataError(file, "must be next or last", row=number, column="message", value=record["message"])
    for key in ("timestamp", "time", "latency"):
        if type(record[key]) not in {int, float}:
            raise DataError(file, "must be a number", row=number, column=key, value=record[key])
    if not isinstance(record["experiments"], dict):
        raise DataError(
            file, "must be an object", row=number, column="experiments", value=record["experiments"]
        )
    return {
        "event_id": f"{file.name}:{number}",
        "type": "last" if record["message"] == "last" else "view",
        "user_id": record["user"],
        "item_id": record["track"],
        "timestamp_ms": int(record["timestamp"]),
        "value": float(record["time"]),
        "latency_ms": 1000.0 * record["latency"],
        "treatments": record["experiments"],
    }
