"""What a simulated audience thought of a service: means with their errors, for people and for programs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.simulator.days import Sitting


@dataclass(frozen=True, slots=True)
class Figure:
    """A sample's mean, its variance (ddof 1; None below two) and size."""

    mean: float
    variance: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Sum up values; the mean of none is nan."""
        n = len(values)
        mean = math.fsum(values) / n if n else math.nan
        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else None
        return cls(mean, variance, n)

    @property
    def sem(self) -> float | None:
        """Standard error of the mean."""
        return None if self.variance is None else math.sqrt(self.variance / self.n)

    def as_json(self) -> dict[str, Any]:
        """`mean`, `sem`, `var`, `n`; null where there is none."""
        mean = None if math.isnan(self.mean) else self.mean
        return {"mean": mean, "sem": self.sem, "var": self.variance, "n": self.n}

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.sem is None else f" ± {self.sem:.3f}")


@dataclass(frozen=True, slots=True)
class Figures:
    """time_per_session, tracks_per_session: over sessions, the first track included (as botify's log has it).

    satisfaction: over sessions, mean share heard of what was offered. latency_ms: over answers.
    user_time_per_session: over users, of each one's mean; users are independent of each other, their sessions are not.
    """

    sessions: int
    users: int
    time_per_session: Figure
    tracks_per_session: Figure
    satisfaction: Figure
    latency_ms: Figure
    user_time_per_session: Figure

    @classmethod
    def of(cls, sittings: Iterable[Sitting]) -> Figures:
        """Sum up the sessions that came to their end."""
        whole = [sitting for sitting in sittings if sitting.fault is None]
        by_user: dict[int, list[float]] = defaultdict(list)
        for sitting in whole:
            by_user[sitting.user].append(sitting.time)
        return cls(
            len(whole),
            len(by_user),
            Figure.of([sitting.time for sitting in whole]),
            Figure.of([len(sitting.played) for sitting in whole]),
            Figure.of([(sitting.time - 1) / (len(sitting.played) - 1) for sitting in whole]),
            Figure.of([1000 * seconds for sitting in whole for seconds in sitting.latency_s]),
            Figure.of([Figure.of(times).mean for times in by_user.values()]),
        )

    def as_json(self) -> dict[str, Any]:
        """Keys are the fields' names."""
        return {
            "sessions": self.sessions,
            "users": self.users,
            **{name: getattr(self, name).as_json() for name in _FIGURES},
        }


_FIGURES = (
    "time_per_session",
    "tracks_per_session",
    "satisfaction",
    "latency_ms",
    "user_time_per_session",
)
_HEADINGS = ("day", "sessions", "users", "time/session", "tracks/session", "satisfaction", "latency ms")


def faults(sittings: Iterable[Sitting]) -> dict[str, int]:
    """How many sessions were broken off, by reason."""
    return dict(Counter(sitting.fault for sitting in sittings if sitting.fault is not None))


def by_day(sittings: Sequence[Sitting]) -> dict[int, Figures]:
    """Sum up each day."""
    days = sorted({sitting.day for sitting in sittings})
    return {day: Figures.of(sitting for sitting in sittings if sitting.day == day) for day in days}


def table(sittings: Sequence[Sitting]) -> str:
    """Lay out the days, and all of them, for people: mean ± standard error."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    lines = [(str(day), figures) for day, figures in by_day(sittings).items()]
    if len(lines) != 1:
        lines.append(("all", Figures.of(sittings)))
    for name, of in lines:
        shown = (of.time_per_session, of.tracks_per_session, of.satisfaction, of.latency_ms)
        rows.append((name, str(of.sessions), str(of.users), *map(str, shown)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )
