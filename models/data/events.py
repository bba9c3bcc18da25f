"""Events of a table -> `Dataset`: read in runs, checked, counted, numbered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from models.data.dataset import Dataset, TimeKind
from models.data.features import FeatureTable
from models.data.identities import IdColumn, number
from models.data.tables import column_names, naming
from models.data.values import Place, TimeColumn, numbers, positions
from service.errors import DataError

RUN_ROWS = 500_000
TIME_ROLES = ("timestamp", "last_watch_dt", "pos")
"""What a time column may mean, the preferred first."""
ROLES = ("user_id", "item_id", "weight", "rating", *TIME_ROLES)


@dataclass(frozen=True, slots=True)
class Signal:
    """A further measure of an event and the range it must be in."""

    name: str
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class EventTable:
    """A table of events. `columns`: role (one of ROLES, or a signal's name) -> column of `frame`."""

    file: Path
    frame: pl.LazyFrame
    columns: Mapping[str, str]
    signals: tuple[Signal, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    """Column of `frame` -> its name in messages, where the file has no header."""


def choose_columns(table: pl.LazyFrame, file: Path, asked: Mapping[str, str]) -> dict[str, str]:
    """Choose role -> column: as asked, else columns of the roles' own names; of several times the preferred.

    Raises DataError where an asked-for column or an id column isn't there, listing the columns found.
    """
    found = column_names(table, file)
    for role, column in asked.items():
        if column not in found:
            raise DataError(file, f"no column {column!r} for {role}; the columns are {', '.join(found)}")
    chosen = {role: asked.get(role, role) for role in ROLES if role in asked or role in found}
    for role in ("user_id", "item_id"):
        if role not in chosen:
            raise DataError(
                file,
                f"no column {role!r} (name it with --column {role}=...); the columns are {', '.join(found)}",
            )
    times = [role for role in TIME_ROLES if role in asked] or [role for role in TIME_ROLES if role in chosen]
    for role in TIME_ROLES:
        if role in chosen and role != times[0]:
            del chosen[role]
    return chosen


class _Columns:
    """What has been read of each role so far."""

    def __init__(self, table: EventTable) -> None:
        self.table = table
        self.users, self.items = IdColumn(), IdColumn()
        self.weights: list[npt.NDArray[np.float32]] = []
        self.ratings: list[npt.NDArray[np.float32]] = []
        self.signals: dict[str, list[npt.NDArray[np.float32]]] = {signal.name: [] for signal in table.signals}
        self.times = TimeColumn(only_iso="last_watch_dt" in table.columns)
        self.positions: list[npt.NDArray[np.int64]] = []
        self.dropped: dict[str, int] = {}

    def drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def add(self, run: pl.DataFrame, offset: int) -> None:
        """Check and take a run of rows. A row without any value is a blank line."""
        columns = self.table.columns
        rows = None
        if (blank := run.select(pl.all_horizontal(pl.all().is_null())).to_series()).any():
            rows = np.flatnonzero(~blank.to_numpy())
            self.drop("blank_row", run.height - len(rows))
            run = run.filter(~blank)

        def at(role: str) -> tuple[pl.Series, Place]:
            name = columns[role]
            return run[name], Place(self.table.file, self.table.named.get(name, name), offset, rows)

        self.users.add(*at("user_id"))
        self.items.add(*at("item_id"))
        if "weight" in columns:
            self.weights.append(numbers(*at("weight"), least=0))
        if "rating" in columns:
            self.ratings.append(numbers(*at("rating")))
        for signal in self.table.signals:
            values = numbers(*at(signal.name), least=signal.least, most=signal.most, optional=True)
            self.signals[signal.name].append(values)
        if "pos" in columns:
            self.positions.append(positions(*at("pos")))
        for role in ("timestamp", "last_watch_dt"):
            if role in columns:
                self.times.add(*at(role))

    def time(self) -> tuple[npt.NDArray[np.int64] | None, TimeKind | None]:
        """Give the times of all events and what they mean."""
        if "timestamp" in self.table.columns or "last_watch_dt" in self.table.columns:
            return self.times.finish(), "timestamp"
        if "pos" in self.table.columns:
            return _joined(self.positions, np.int64), "position"
        return None, None


def read_events(
    name: str,
    table: EventTable,
    *,
    users: FeatureTable | None = None,
    items: FeatureTable | None = None,
    progress: bool = False,
) -> Dataset:
    """Read events and number their users and items together with those of the feature tables.

    Left out and counted in `dropped`: `blank_row`, `zero_weight`, `duplicate_row` (equal in every column
    read). Raises DataError naming file, row, column and value of the first fault.
    """
    columns = _Columns(table)
    offset = 0
    for run in _runs(table, progress=progress):
        columns.add(run, offset)
        offset += run.height
    user_ids, (user_rows, *user_feature_rows) = number([columns.users, *([users.ids] if users else [])])
    item_ids, (item_rows, *item_feature_rows) = number([columns.items, *([items.ids] if items else [])])
    times, time_kind = columns.time()
    weighted = "weight" in table.columns
    dataset = Dataset(
        name=name,
        user_ids=user_ids,
        item_ids=item_ids,
        user_rows=user_rows,
        item_rows=item_rows,
        weights=_joined(columns.weights, np.float32) if weighted else np.ones(len(user_rows), np.float32),
        times=times,
        time_kind=time_kind,
        users=users.in_order(user_feature_rows[0], len(user_ids)) if users else None,
        items=items.in_order(item_feature_rows[0], len(item_ids)) if items else None,
        fingerprint=fingerprint(
            [table.file, *(users.files if users else ()), *(items.files if items else ())],
        ),
        ratings=_joined(columns.ratings, np.float32) if "rating" in table.columns else None,
        signals={signal: _joined(runs, np.float32) for signal, runs in columns.signals.items()},
    )
    return _tidy(dataset, columns)


def _tidy(dataset: Dataset, columns: _Columns) -> Dataset:
    """Leave out events of zero weight and exact repeats, counting them."""
    if not (positive := dataset.weights > 0).all():
        columns.drop("zero_weight", int((~positive).sum()))
        dataset = dataset.select(positive)
    if (repeats := _repeats(dataset)).any():
        columns.drop("duplicate_row", int(repeats.sum()))
        dataset = dataset.select(~repeats)
    return replace(dataset, dropped=dict(columns.dropped))


def _repeats(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Mark (bool (n,)) events equal to an earlier one in everything that was read."""
    pairs = dataset.user_rows.astype(np.int64) * max(dataset.n_items, 1) + dataset.item_rows
    repeats = np.zeros(len(dataset), np.bool_)
    # Sorting a copy costs less memory than hashing, and few pairs, if any, need a closer look.
    ordered = np.sort(pairs)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(several):
        return repeats
    suspects = np.flatnonzero(np.isin(pairs, several))
    everything = {"__pair": pairs, "__weight": dataset.weights, **dataset.signals}
    if dataset.times is not None:
        everything["__time"] = dataset.times
    if dataset.ratings is not None:
        everything["__rating"] = dataset.ratings
    rows = pl.DataFrame({name: values[suspects] for name, values in everything.items()})
    repeats[suspects] = ~rows.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return repeats


def _runs(table: EventTable, *, progress: bool) -> Iterator[pl.DataFrame]:
    frame = table.frame.select(list(dict.fromkeys(table.columns.values())))
    shown = Progress(
        SpinnerColumn(),
        TextColumn("reading {task.description}: {task.completed:,} rows"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with naming(table.file), shown:
        task = shown.add_task(table.file.name, total=None)
        for run in frame.collect_batches(chunk_size=RUN_ROWS, maintain_order=True):
            shown.advance(task, run.height)
            yield run


def _joined(runs: list[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate(runs) if runs else np.empty(0, dtype)


def fingerprint(files: Iterable[Path]) -> str:
    """sha256 (hex) of the files' bytes, end to end, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(set(files), key=lambda path: (path.name, str(path))):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
