"""The product by its log: all of `activity` and `shown` in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from models.analysis.activity import (
    DAY_MS,
    Activity,
    Counts,
    Kept,
    Period,
    active_users,
    activity,
    growth,
    retention,
)
from models.analysis.shown import (
    Coverage,
    Exposure,
    Money,
    Sessions,
    coverage,
    drift,
    exposure,
    item_counts,
    money,
    sessions,
)
from service.errors import InputError

MONTH, WEEK = 30, 7


@dataclass(frozen=True, slots=True)
class Product:
    """`daily`, `weekly`, `monthly`: users active within 1, 7 and 30 days up to each day, int64 (days,).

    `drift`: stability index by what was compared, before and from `split_ms` on.
    """

    first_day: int
    users: int
    daily: Counts
    weekly: Counts
    monthly: Counts
    period_days: int
    churned_after: int
    periods: tuple[Period, ...]
    retention: Mapping[str, list[Kept]]
    exposure: Exposure
    coverage: Coverage
    split_ms: int
    drift: Mapping[str, float]
    money: Money | None
    sessions: Sessions | None

    @property
    def stickiness(self) -> float:
        """Daily by monthly users, mean over the days with a whole month behind them (over all, if there are none)."""
        ratios = self.daily / self.monthly
        return float((ratios[MONTH - 1 :] if len(ratios) >= MONTH else ratios).mean())

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values; of daily numbers the last."""
        return {
            "days": len(self.daily),
            "first_day": day_name(self.first_day),
            "last_day": day_name(self.first_day + len(self.daily) - 1),
            "users": self.users,
            "dau": int(self.daily[-1]),
            "wau": int(self.weekly[-1]),
            "mau": int(self.monthly[-1]),
            "stickiness": self.stickiness,
            "growth": [
                {**asdict(one), "first_day": day_name(one.first_day), "churn_rate": one.churn_rate}
                for one in self.periods
            ],
            "retention": {
                kind: {one.name: {"users": one.users, "rate": one.rate} for one in rows}
                for kind, rows in self.retention.items()
            },
            "funnel": [asdict(step) for step in self.exposure.funnel],
            "ctr": {
                key: {one.name: {"shown": one.shown, "ctr": one.ctr} for one in rows}
                for key, rows in self.exposure.rates.items()
            },
            "coverage": asdict(self.coverage),
            "drift": {"split": _moment_name(self.split_ms), "psi": dict(self.drift)},
            "money": None if self.money is None else asdict(self.money),
            "sessions": None if self.sessions is None else asdict(self.sessions),
        }


def measure(
    events: pl.LazyFrame,
    *,
    period_days: int = WEEK,
    churned_after: int = 4,
    gap_ms: int = 1_800_000,
    split_ms: int | None = None,
    items: pl.DataFrame | None = None,
) -> Product:
    """Measure it. split_ms: for drift; None: the middle of the log's days. items: the catalogue, a row an item, with
    item_id and maybe category. Raises InputError for a log without users."""
    found = activity(events)
    if found is None:
        raise InputError("--events: the log has no record of a user")
    middle = _middle(found) if split_ms is None else split_ms
    users = found.days["user_id"].n_unique()
    categories = items if items is not None and "category" in items.columns else None
    return Product(
        found.first_day,
        users,
        active_users(found, 1),
        active_users(found, WEEK),
        active_users(found, MONTH),
        period_days,
        churned_after,
        tuple(growth(found, period_days=period_days, churned_after=churned_after)),
        retention(found),
        exposure(events),
        coverage(item_counts(events), None if items is None else items["item_id"].n_unique()),
        middle,
        drift(events, middle, categories),
        money(events, users),
        sessions(events, gap_ms),
    )


def _middle(found: Activity) -> int:
    return (found.first_day + -(-found.length // 2)) * DAY_MS


def day_name(day: int) -> str:
    """Name a day since 1970 by its date."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()


def _moment_name(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="minutes")
