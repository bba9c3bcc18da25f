"""From the log to what off-policy evaluation weighs: places left to chance, their propensities, what they earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from models.analysis.log import collected
from models.analysis.users import IS_SLATE
from service.errors import InputError

Reward = Literal["click", "view", "time", "purchase", "revenue"]
REWARDS: tuple[Reward, ...] = get_args(Reward)
_FOLDS = 2
_SHRINK = 10.0
"""Places an item counts as not seen: its mean is pulled to its place's by as many (an empirical Bayes mean)."""

_COUNTED: Mapping[Reward, tuple[str, bool]] = {
    "click": ("click", False),
    "view": ("view", False),
    "time": ("view", True),
    "purchase": ("purchase", False),
    "revenue": ("purchase", True),
}
"""The feedback, and whether its values are summed; otherwise a place earns 1 at most."""


@dataclass(frozen=True, slots=True)
class Explored:
    """Slates that left something to chance.

    slots: a row a place by slate and place, with event_id, user_id, timestamp_ms, position (from 0), item_id,
    propensity, reward, fold. `certain`, `nameless`: slates left out because nothing was left to chance, or nobody's.
    """

    slots: pl.DataFrame
    certain: int
    nameless: int


def explored_slots(events: pl.LazyFrame, reward: Reward) -> Explored:
    """Take the explored slates, and what each place earned: feedback of that user with its request and item.

    Raises InputError where there are none, and for a propensity that is not in (0, 1], naming the record.
    """
    slates = events.filter(IS_SLATE)
    counts = collected(
        slates.select(
            pl.col("propensities").is_null().sum().alias("certain"),
            (pl.col("propensities").is_not_null() & pl.col("user_id").is_null()).sum().alias("nameless"),
        )
    ).row(0)
    usable = slates.filter(pl.col("propensities").is_not_null(), pl.col("user_id").is_not_null())
    uneven = collected(
        usable.filter(pl.col("propensities").list.len() != pl.col("items").list.len())
        .select("event_id")
        .head(1)
    )
    if len(uneven):
        raise InputError(f"--events: record {uneven.item()!r} has not one propensity a place")
    kind, valued = _COUNTED[reward]
    earned = (
        events.filter(pl.col("type") == kind, pl.col("request_id").is_not_null())
        .group_by("request_id", "user_id", "item_id")
        .agg(
            (pl.col("value").fill_null(0.0).sum() if valued else pl.lit(1.0)).alias("reward"),
        )
    )
    places = (
        usable.select("event_id", "request_id", "user_id", "timestamp_ms", "items", "propensities")
        .with_columns(pl.int_ranges(0, pl.col("items").list.len()).alias("position"))
        .explode("items", "propensities", "position")
        .rename({"items": "item_id", "propensities": "propensity"})
    )
    slots = collected(
        places.join(earned, on=["request_id", "user_id", "item_id"], how="left")
        .drop("request_id")
        .with_columns(pl.col("reward").fill_null(0.0))
    ).sort("event_id", "position")
    if not len(slots):
        raise InputError(
            "--events: no slate has propensities: only a plan with exploration leaves something to evaluate by"
        )
    fine = pl.col("propensity").is_between(0.0, 1.0, closed="right").fill_null(value=False)
    wrong = slots.filter(~fine)
    if len(wrong):
        row = wrong.row(0, named=True)
        raise InputError(
            f"--events: record {row['event_id']!r}, place {row['position'] + 1}: propensity {row['propensity']} "
            "is not in (0, 1]"
        )
    users = slots.select(pl.col("user_id").unique().sort()).with_row_index("fold")
    slots = slots.join(users.with_columns(pl.col("fold") % _FOLDS), on="user_id", maintain_order="left")
    return Explored(slots, *counts)


class RewardModel:
    """What an item earns at a place: the place's mean plus the item's, shrunken. Each half of the users is told by the
    other half (cross-fitting; Chernozhukov et al. 2018), so that no reward predicts itself."""

    def __init__(self, slots: pl.DataFrame) -> None:
        """slots: of `Explored`."""
        parts = [
            slots.filter(pl.col("fold") != fold).with_columns(fold=pl.lit(fold)) for fold in range(_FOLDS)
        ]
        others = pl.concat(
            [part if len(part) else slots.with_columns(fold=pl.lit(n)) for n, part in enumerate(parts)]
        )
        by_place = others.group_by("fold", "position").agg(pl.col("reward").mean().alias("mean"))
        by_item = (
            others.join(by_place, on=["fold", "position"])
            .group_by("fold", "item_id")
            .agg(((pl.col("reward") - pl.col("mean")).sum() / (pl.len() + _SHRINK)).alias("more"))
        )
        overall = others.group_by("fold").agg(pl.col("reward").mean().alias("overall"))
        self._place = {(f, p): m for f, p, m in by_place.iter_rows()}
        self._item = {(f, i): m for f, i, m in by_item.iter_rows()}
        self._overall: dict[int, float] = dict(overall.iter_rows())

    def place(self, fold: int, position: int) -> float:
        """Mean of the place."""
        found: float = self._place.get((fold, position), self._overall[fold])
        return found

    def item(self, fold: int, item_id: str) -> float:
        """What the item earns more than its place; 0 for one never shown."""
        found: float = self._item.get((fold, item_id), 0.0)
        return found
