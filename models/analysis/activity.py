"""Who was active when: daily, weekly and monthly users, growth accounting, retention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from models.analysis.log import collected

DAY_MS = 86_400_000
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Activity:
    """Days (UTC, since 1970) on which a user left any record, theirs or an answer to them.

    days: a row a user and day, by user and day, with `next`, the user's next active day (null: none) and `first`.
    """

    days: pl.DataFrame
    first_day: int
    last_day: int

    @property
    def length(self) -> int:
        """Days from the first to the last."""
        return self.last_day - self.first_day + 1


def activity(events: pl.LazyFrame) -> Activity | None:
    """Read it off the log; None where no record has a user."""
    days = collected(
        events.filter(pl.col("user_id").is_not_null())
        .select("user_id", day=(pl.col("timestamp_ms") // DAY_MS).cast(pl.Int32))
        .unique()
    ).sort("user_id", "day")
    if not len(days):
        return None
    return Activity(_linked(days), int(days["day"].min()), int(days["day"].max()))  # type: ignore[arg-type]


def _linked(days: pl.DataFrame) -> pl.DataFrame:
    """Add each user's next and first of the ordered `day`."""
    return days.with_columns(
        next=pl.col("day").shift(-1).over("user_id"), first=pl.col("day").first().over("user_id")
    )


def active_users(found: Activity, window: int) -> Counts:
    """Users active within `window` days up to and with each day, int64 (length,)."""
    day = found.days["day"].to_numpy() - found.first_day
    following = (found.days["next"] - found.first_day).fill_null(found.length).to_numpy()
    return _spans(day, np.minimum(np.minimum(day + window, following), found.length), found.length)


def _spans(begin: npt.NDArray[np.integer], end: npt.NDArray[np.integer], length: int) -> Counts:
    """How many of the spans [begin, end) hold each place; empty spans count nowhere."""
    real = end > begin
    starts = np.bincount(begin[real], minlength=length + 1)
    ends = np.bincount(end[real], minlength=length + 1)
    counts: Counts = np.cumsum(starts - ends)[:length]
    return counts


@dataclass(frozen=True, slots=True)
class Period:
    """Users of one period by state; together they are all users known until then.

    new: never seen before. current: active in this and the period before. returned: active, but not in the period
    before. dormant: not active, but within the last `churned_after` periods. churned: not active for as many.
    `lost`: active in the period before and not in this one.
    """

    first_day: int
    new: int
    current: int
    returned: int
    dormant: int
    churned: int
    lost: int

    @property
    def active(self) -> int:
        """Users of the period."""
        return self.new + self.current + self.returned

    @property
    def churn_rate(self) -> float | None:
        """Share of the users of the period before who are not in this one; None where there were none."""
        before = self.lost + self.current
        return self.lost / before if before else None


def growth(found: Activity, *, period_days: int = 7, churned_after: int = 4) -> list[Period]:
    """Growth accounting by whole periods that end with the log's last day, oldest first.

    Days before the first whole period count for who is new and make no period. A log shorter than a period makes one.
    """
    # Periods counted from the end: 0 is the one that the log ends with; `offset` makes the oldest 0.
    whole = max(found.length // period_days, 1)
    partial = -(-found.length // period_days)
    offset = partial - 1
    periods = _linked(
        found.days.select(
            "user_id", day=offset - (pl.lit(found.last_day) - pl.col("day")) // period_days
        ).unique(maintain_order=True)
    )
    at, first = periods["day"].to_numpy(), periods["first"].to_numpy()
    following = periods["next"].fill_null(partial).to_numpy()
    previous = periods.select(pl.col("day").shift(1).over("user_id").fill_null(-2))["day"].to_numpy()

    def count(rows: npt.NDArray[np.bool_]) -> Counts:
        counts: Counts = np.bincount(at[rows], minlength=partial)
        return counts

    new, current = count(at == first), count(previous == at - 1)
    returned = count((at != first) & (previous != at - 1))
    dormant = _spans(at + 1, np.minimum(following, np.minimum(at + churned_after, partial)), partial)
    churned = _spans(np.minimum(at + churned_after, partial), following, partial)
    lost = _spans(at + 1, np.minimum(np.minimum(at + 2, following), partial), partial)
    return [
        Period(
            found.last_day + 1 - (offset - p + 1) * period_days,
            *(int(counts[p]) for counts in (new, current, returned, dormant, churned, lost)),
        )
        for p in range(partial - whole, partial)
    ]


@dataclass(frozen=True, slots=True)
class Kept:
    """Retention of users by their first day. `users`: those whose first day is long enough ago to tell."""

    name: str
    users: int
    kept: int

    @property
    def rate(self) -> float | None:
        """Share of them who came back so; None where there is nobody to tell of."""
        return self.kept / self.users if self.users else None


def retention(
    found: Activity,
    *,
    days: Sequence[int] = (1, 3, 7, 14, 30),
    brackets: Sequence[tuple[int, int]] = ((1, 3), (4, 7), (8, 14), (15, 30)),
) -> dict[str, list[Kept]]:
    """Three kinds by name: `n_day` (active on that day after their first), `unbounded` (on that day or later) and
    `bracketed` (on any of the days of a bracket, both ends included)."""
    rows = found.days.with_columns(since=pl.col("day") - pl.col("first"))
    firsts = rows.filter(pl.col("since") == 0)["first"]

    def kept(name: str, condition: pl.Expr, needed: int) -> Kept:
        told = pl.col("first") + needed <= found.last_day
        return Kept(
            name,
            int((firsts + needed <= found.last_day).sum()),
            rows.filter(told & condition)["user_id"].n_unique(),
        )

    since = pl.col("since")
    return {
        "n_day": [kept(f"day {n}", since == n, n) for n in days],
        "unbounded": [kept(f"day {n}+", since >= n, n) for n in days],
        "bracketed": [kept(f"days {a}-{b}", since.is_between(a, b), b) for a, b in brackets],
    }
