"""Make up a data set in KION's schema, of any size, the same bytes for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.progress import Progress

from models.data.invented import items_table, users_table
from models.data.taste import CHUNK_USERS, Watched, capacity, make_audience, make_world, watch
from service.errors import InputError

Format = Literal["csv", "parquet"]
START = date(2021, 3, 13)
END = date(2021, 8, 22)
"""First and last day of KION's interactions."""
WRITE_ROWS = 500_000
STEMS = ("interactions", "users", "items")


@dataclass(frozen=True, slots=True)
class Generated:
    """The files written and how many rows they hold."""

    interactions: Path
    users: Path
    items: Path
    n_interactions: int
    n_users: int
    n_items: int


def generate(
    out: Path,
    *,
    n_users: int,
    n_items: int,
    n_interactions: int,
    seed: int,
    start: date = START,
    end: date = END,
    file_format: Format = "csv",
    progress: bool = False,
) -> Generated:
    """Write interactions, users and items with KION's columns into `out`, made if it isn't there.

    n_users counts everybody: about 8% of them have no event and occur in the users table only. Exactly
    `n_interactions` rows, sorted by date, a (user, item) pair at most once. Needs about 60 bytes a row of memory.
    Raises InputError where the numbers can't be met, or `out` holds a data set already.
    """
    _check(n_users, n_items, n_interactions, seed, start, end)
    interactions, users, items = (out / f"{stem}.{file_format}" for stem in STEMS)
    taken = [file for stem in STEMS for file in sorted(out.glob(f"{stem}.*"))]
    if taken:
        raise InputError(
            f"--out {out}: {taken[0].name} is there already; generate into a folder without a data set"
        )
    for_world, for_audience, for_watching, for_tables = np.random.SeedSequence(seed).spawn(4)
    world = make_world(n_items, (end - start).days + 1, np.random.default_rng(for_world))
    if n_interactions > (most := capacity(n_users, world)):
        raise InputError(
            f"--interactions {n_interactions}: too many for {n_users:,} users and {n_items:,} items "
            f"(at most {most:,}, as nobody watches an item twice): ask for more users or items"
        )
    rng = np.random.default_rng(for_audience)
    audience = make_audience(n_users, n_interactions, world, rng)
    user_ids, item_ids = _random_ids(n_users, rng), _random_ids(n_items, rng)
    out.mkdir(parents=True, exist_ok=True)
    table_rng = np.random.default_rng(for_tables)
    _write(users_table(user_ids, audience, table_rng), users)
    _write(items_table(item_ids, world, start.year, table_rng), items)
    minutes = np.clip(table_rng.lognormal(4.6, 0.5, n_items), 5, 900)
    columns: list[pl.DataFrame] = []
    with Progress(console=Console(stderr=True), disable=not progress) as shown:
        task = shown.add_task("generating", total=-(-n_users // CHUNK_USERS))
        for run in watch(world, audience, for_watching):
            columns.append(_watching(run, user_ids, item_ids, minutes, table_rng))
            shown.advance(task)
    _write_events(columns, start, interactions)
    return Generated(interactions, users, items, n_interactions, n_users, n_items)


def _check(n_users: int, n_items: int, n_interactions: int, seed: int, start: date, end: date) -> None:
    for flag, value in (("users", n_users), ("items", n_items), ("interactions", n_interactions)):
        if not 1 <= value <= 2**31:
            raise InputError(f"--{flag} {value}: must be from 1 to {2**31}")
    if seed < 0:
        raise InputError(f"--seed {seed}: must not be negative")
    if end < start:
        raise InputError(f"--end {end}: must not be before --start {start}")


def _random_ids(n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """int64 (n,): ids with gaps and in no order, as real ones are."""
    return rng.permutation(n + n // 7)[:n].astype(np.int64)


def _watching(
    run: Watched,
    user_ids: npt.NDArray[np.int64],
    item_ids: npt.NDArray[np.int64],
    minutes: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Draw how long they watched: the better it fits, the more; many to the end, some hardly at all."""
    n = len(run.users)
    liking = 1.0 / (1.0 + np.exp(-(5.0 * run.affinity - 0.5 + rng.normal(0, 1.2, n))))
    share = np.clip(100 * liking * rng.uniform(0.6, 1.5, n), 0, 100)
    share[rng.random(n) < 0.12] *= 0.1
    seconds = np.maximum(
        (minutes[run.items] * 60 * share / 100 * rng.uniform(0.9, 1.1, n)).astype(np.int32), 1
    )
    watched = pl.Series(np.rint(share).astype(np.float32))
    return pl.DataFrame(
        {
            "user_id": user_ids[run.users],
            "item_id": item_ids[run.items],
            "day": run.days.astype(np.uint16),
            "total_dur": seconds,
            "watched_pct": watched.set(pl.Series(rng.random(n) < 0.0002), None),
        },
        schema_overrides={"user_id": pl.Int32, "item_id": pl.Int32},
    )


def _write_events(runs: list[pl.DataFrame], start: date, path: Path) -> None:
    """Sort by day and write, a slice of rows at a time."""
    events = pl.concat(runs, rechunk=True)
    runs.clear()
    order = pl.Series(np.argsort(events["day"].to_numpy(), kind="stable").astype(np.uint32))

    def part(begin: int) -> pl.DataFrame:
        rows = events[order[begin : begin + WRITE_ROWS]]
        return rows.select(
            "user_id",
            "item_id",
            (pl.lit(start) + pl.duration(days=pl.col("day"))).cast(pl.Date).alias("last_watch_dt"),
            "total_dur",
            "watched_pct",
        )

    parts = (part(begin) for begin in range(0, events.height, WRITE_ROWS))
    if path.suffix == ".parquet":
        pl.concat(list(parts)).write_parquet(path)
        return
    with path.open("wb") as file:
        for i, rows in enumerate(parts):
            rows.write_csv(file, include_header=i == 0, float_precision=1)


def _write(table: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path, float_precision=1)
