"""The event log as one table, a row a record: what analysis and training read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from service.errors import InputError
from service.events.reading import lines

ROWS_AT_ONCE = 50_000
FORMATS = (".parquet", ".jsonl")

SCHEMA: Mapping[str, pl.DataType] = {
    "event_id": pl.String(),
    "type": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp_ms": pl.Int64(),
    "value": pl.Float64(),
    "request_id": pl.String(),
    "bundle": pl.String(),
    "model": pl.String(),
    "source": pl.String(),
    "degraded": pl.List(pl.String()),
    "treatments": pl.String(),
    "items": pl.List(pl.String()),
    "scores": pl.List(pl.Float32()),
    "propensities": pl.List(pl.Float64()),
    "latency_ms": pl.Float64(),
}
"""Ids are strings whichever kind the bundle has; `treatments` is a JSON object. What a record lacks is null: feedback
has no slate (`bundle` to `latency_ms`), a slate has no `item_id` and `value`."""


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out a decoded record as a row of the table."""
    treatments, items = record.get("treatments"), record.get("items")
    return {
        "event_id": record["event_id"],
        "type": record["type"],
        "user_id": _text(record["user_id"]),
        "item_id": _text(record.get("item_id")),
        "timestamp_ms": record["timestamp_ms"],
        "value": record.get("value"),
        "request_id": record.get("request_id"),
        "bundle": record.get("bundle"),
        "model": record.get("model"),
        "source": record.get("source"),
        "degraded": record.get("degraded"),
        "treatments": None if treatments is None else orjson.dumps(treatments).decode(),
        "items": None if items is None else [str(item) for item in items],
        "scores": record.get("scores"),
        "propensities": record.get("propensities"),
        "latency_ms": record.get("latency_ms"),
    }


def write_records(records: Iterable[Mapping[str, Any]], out: Path) -> int:
    """Write decoded records to a .parquet or .jsonl file; returns how many.

    The file appears whole or not at all, and memory holds `ROWS_AT_ONCE` records. Raises InputError for another ending.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"--out: {out} must end in {' or '.join(FORMATS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        whole = Path(folder) / out.name
        write = _write_parquet if out.suffix == ".parquet" else _write_lines
        count = write(records, whole)
        whole.replace(out)
    return count


def _write_lines(records: Iterable[Mapping[str, Any]], out: Path) -> int:
    count = 0
    with out.open("wb") as file:
        for line in lines(records):
            file.write(line)
            count += 1
    return count


def _write_parquet(records: Iterable[Mapping[str, Any]], out: Path) -> int:
    """Write parts, then stream them into one file: polars has no writer that takes rows as they come."""
    parts: list[Path] = []
    count = 0
    for frame in _frames(records):
        count += len(frame)
        parts.append(out.with_name(f"part-{len(parts):06d}"))
        frame.write_parquet(parts[-1])
    if parts:
        pl.scan_parquet(parts).sink_parquet(out)
    else:
        pl.DataFrame(schema=SCHEMA).write_parquet(out)
    return count


def _frames(records: Iterable[Mapping[str, Any]]) -> Iterator[pl.DataFrame]:
    rows = map(row_of, records)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield pl.DataFrame(batch, schema=SCHEMA)


def _text(identifier: Any) -> str | None:
    return None if identifier is None else str(identifier)
