"""What became of what was shown: the funnel, click-through rates, coverage, drift, money, session lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from models.analysis.log import collected
from models.analysis.users import IS_SLATE

STEPS = ("view", "click", "purchase")
_OWN_BINS = 50
"""Items with a bin of their own in the drift of items: too many bins make any index large by chance."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the funnel. `places`: shown places that got there at all; `through`: and got to every step before."""

    name: str
    events: int
    users: int
    places: int
    through: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Clicks by places shown."""

    name: str
    shown: int
    clicked: int

    @property
    def ctr(self) -> float:
        """Share of the places that were clicked."""
        return self.clicked / self.shown


@dataclass(frozen=True, slots=True)
class Exposure:
    """`rates`: by `position` (from 1), `source` and `model`, in that order."""

    funnel: tuple[Step, ...]
    rates: Mapping[str, tuple[Rate, ...]]


def exposure(events: pl.LazyFrame) -> Exposure:
    """Join feedback to the place where its item was shown to that user, by request id and item."""
    reached = (
        events.filter(pl.col("type").is_in(STEPS), pl.col("request_id").is_not_null())
        .group_by("request_id", "user_id", "item_id")
        .agg(*((pl.col("type") == step).any().alias(step) for step in STEPS))
    )
    places = (
        events.filter(IS_SLATE, pl.col("user_id").is_not_null())
        .select("request_id", "user_id", "source", "model", item_id="items")
        .with_columns(position=pl.int_ranges(1, pl.col("item_id").list.len() + 1))
        .explode("item_id", "position")
        .filter(pl.col("item_id").is_not_null())
        .join(reached, on=["request_id", "user_id", "item_id"], how="left")
        .with_columns(pl.col(step).fill_null(value=False) for step in STEPS)
    )
    cells = collected(
        places.group_by("position", "source", "model").agg(
            pl.len().alias("shown"),
            *(pl.col(step).sum() for step in STEPS),
            *(
                pl.all_horizontal(STEPS[: n + 1]).sum().alias(f"through_{step}")
                for n, step in enumerate(STEPS)
            ),
        )
    )
    counts = collected(
        events.with_columns(kind=pl.when(IS_SLATE).then(pl.lit("shown")).otherwise(pl.col("type")))
        .group_by("kind")
        .agg(pl.len().alias("events"), pl.col("user_id").drop_nulls().n_unique().alias("users"))
    )
    totals = {kind: (n, users) for kind, n, users in counts.iter_rows()}
    shown = int(cells["shown"].sum())
    funnel = [Step("shown", *totals.get("shown", (0, 0)), shown, shown)]
    funnel += [
        Step(step, *totals.get(step, (0, 0)), int(cells[step].sum()), int(cells[f"through_{step}"].sum()))
        for step in STEPS
    ]
    return Exposure(tuple(funnel), {key: _rates(cells, key) for key in ("position", "source", "model")})


def _rates(cells: pl.DataFrame, key: str) -> tuple[Rate, ...]:
    rows = cells.group_by(key).agg(pl.col("shown").sum(), pl.col("click").sum())
    rows = rows.sort(key) if key == "position" else rows.sort("shown", key, descending=[True, False])
    return tuple(Rate(str(name), shown, clicked) for name, shown, clicked in rows.iter_rows())


@dataclass(frozen=True, slots=True)
class Coverage:
    """Items shown and acted on. `catalogue`: items there are, None where nobody says. `gini`: of shown places over the
    catalogue (else over what was shown), 0 all alike, 1 one item only."""

    shown: int
    acted_on: int
    catalogue: int | None
    gini: float | None


def item_counts(events: pl.LazyFrame) -> pl.DataFrame:
    """Columns kind (`shown` or `feedback`), item_id, count."""
    shown = events.filter(IS_SLATE).select(pl.lit("shown").alias("kind"), item_id="items").explode("item_id")
    acted = events.filter(pl.col("type").is_in([*STEPS, "rating"])).select(
        pl.lit("feedback").alias("kind"), "item_id"
    )
    both = pl.concat([shown, acted]).filter(pl.col("item_id").is_not_null())
    return collected(both.group_by("kind", "item_id").agg(pl.len().alias("count")))


def coverage(counts: pl.DataFrame, catalogue: int | None) -> Coverage:
    """Count distinct items. counts: of `item_counts`."""
    shown = np.sort(counts.filter(pl.col("kind") == "shown")["count"].to_numpy()).astype(np.float64)
    n = max(len(shown), catalogue or 0)
    gini = None
    if n > 1 and len(shown):
        exposures = np.concatenate((np.zeros(n - len(shown)), shown)) / shown.sum()
        gini = float(((2 * np.arange(1, n + 1) - n - 1) * exposures).sum() / (n - 1))
    return Coverage(len(shown), int((counts["kind"] == "feedback").sum()), catalogue, gini)


def population_stability(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Population stability index, sum of (q - p) ln(q / p) over bins; 0 for equal shares.

    Half a count is added to every bin, so an empty one is no infinity (Siddiqi 2006, "Credit Risk Scorecards",
    chapter 7, has the index and its customary marks: below 0.1 stable, above 0.25 shifted).
    """
    bins = sorted(before.keys() | after.keys())
    p, q = (np.array([side.get(name, 0) + 0.5 for name in bins]) for side in (before, after))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def drift(events: pl.LazyFrame, split_ms: int, categories: pl.DataFrame | None = None) -> dict[str, float]:
    """Compare shares before and from `split_ms` on: of items shown and acted on, sources, models, and, where
    `categories` (item_id, category) is given, of categories. What one side has nothing of is left out."""
    sides = [
        events.filter(pl.col("timestamp_ms") < split_ms),
        events.filter(pl.col("timestamp_ms") >= split_ms),
    ]
    found: dict[str, float] = {}
    counts = [item_counts(side) for side in sides]
    for kind in ("shown", "feedback"):
        old, new = (_as_dict(side.filter(pl.col("kind") == kind), "item_id") for side in counts)
        if old and new:
            found[f"items {kind}"] = population_stability(*_binned(old, new))
        if old and new and categories is not None:
            old, new = (
                _as_dict(side.filter(pl.col("kind") == kind).join(categories, on="item_id"), "category")
                for side in counts
            )
            if old and new:
                found[f"categories {kind}"] = population_stability(old, new)
    for column in ("source", "model"):
        tables = [
            collected(
                side.filter(IS_SLATE, pl.col(column).is_not_null())
                .group_by(column)
                .agg(pl.len().alias("count"))
            )
            for side in sides
        ]
        if all(len(table) for table in tables):
            found[f"{column}s"] = population_stability(*(_as_dict(table, column) for table in tables))
    return found


def _as_dict(table: pl.DataFrame, key: str) -> dict[str, int]:
    return dict(table.group_by(key).agg(pl.col("count").sum()).iter_rows())


def _binned(old: dict[str, int], new: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """The most frequent items of before by themselves; the others, and those that are new, in two bins."""
    kept = set(sorted(old, key=lambda item: (-old[item], item))[:_OWN_BINS])

    def binned(side: dict[str, int]) -> dict[str, int]:
        found: dict[str, int] = {}
        for item, count in side.items():
            name = f"item {item}" if item in kept else "others" if item in old else "new"
            found[name] = found.get(name, 0) + count
        return found

    return binned(old), binned(new)


@dataclass(frozen=True, slots=True)
class Money:
    """What purchases with an amount came to. `per_user`: of users active at all (ARPU)."""

    gmv: float
    orders: int
    buyers: int
    per_user: float
    per_buyer: float
    per_order: float


def money(events: pl.LazyFrame, users: int) -> Money | None:
    """Sum amounts; None where no purchase has one."""
    paid = events.filter(pl.col("type") == "purchase", pl.col("value").is_not_null())
    gmv, orders, buyers = collected(
        paid.select(
            pl.col("value").sum(), pl.len().alias("orders"), pl.col("user_id").n_unique().alias("buyers")
        )
    ).row(0)
    return Money(gmv, orders, buyers, gmv / max(users, 1), gmv / buyers, gmv / orders) if orders else None


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions, seconds from first to last record, and records in one."""

    count: int
    seconds_mean: float
    seconds_median: float
    seconds_p90: float
    records_mean: float


def sessions(events: pl.LazyFrame, gap_ms: int) -> Sessions | None:
    """A session ends with a `last`, or where a user leaves no record for longer than `gap_ms`. None without users."""
    rows = collected(
        events.filter(pl.col("user_id").is_not_null()).select(
            "user_id", "timestamp_ms", ends=(pl.col("type") == "last").cast(pl.Int8)
        )
    ).sort("user_id", "timestamp_ms", "ends")
    if not len(rows):
        return None
    begins = (
        (pl.col("user_id") != pl.col("user_id").shift(1))
        | (pl.col("timestamp_ms") - pl.col("timestamp_ms").shift(1) > gap_ms)
        | (pl.col("ends").shift(1) == 1)
    ).fill_null(value=True)
    lengths = (
        rows.with_columns(session=begins.cum_sum())
        .group_by("session")
        .agg(
            seconds=(pl.col("timestamp_ms").max() - pl.col("timestamp_ms").min()) / 1000,
            records=pl.len(),
        )
    )
    seconds: Sequence[float] = np.quantile(lengths["seconds"].to_numpy(), [0.5, 0.9]).tolist()
    return Sessions(
        len(lengths),
        float(lengths["seconds"].to_numpy().mean()),
        seconds[0],
        seconds[1],
        float(lengths["records"].to_numpy().mean()),
    )
