"""The metrics of an experiment, each from a user's sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over users of top / bottom (no bottom: of top), or, for a ratio metric, sum(top) / sum(bottom).

    Users without `among` (a sum of `models.analysis.users`) are not in it. `better`: which way is good.
    """

    name: str
    top: str
    bottom: str | None = None
    among: str | None = None
    better: Literal["higher", "lower"] = "higher"

    def of_users(self, sums: pl.DataFrame) -> Floats:
        """One value a user, NaN for users who are not in it."""
        top = sums[self.top].to_numpy().astype(np.float64)
        bottom = np.ones(len(top)) if self.bottom is None else sums[self.bottom].to_numpy()
        inside = bottom > 0
        if self.among is not None:
            inside &= sums[self.among].to_numpy() > 0
        values: Floats = np.full(len(top), np.nan)
        values[inside] = top[inside] / bottom[inside]
        return values

    def parts(self, sums: pl.DataFrame) -> tuple[Floats, Floats]:
        """(numerator, denominator) of a ratio metric, one a user, float64 (n_users,)."""
        assert self.bottom is not None
        return sums[self.top].to_numpy(), sums[self.bottom].to_numpy()


SESSION_MEANS = (
    Metric("time", "time", among="sessions"),
    Metric("sessions", "sessions", among="sessions"),
    Metric("mean_request_latency", "latency_ms", "requests", "sessions", "lower"),
    Metric("mean_tracks_per_session", "tracks", "sessions", "sessions"),
    Metric("mean_time_per_session", "time", "sessions", "sessions"),
)
"""As botify's analysis has them: users with a closed session, latency in milliseconds."""

FEEDBACK_MEANS = (
    Metric("clicks", "clicks"),
    Metric("purchases", "purchases"),
    Metric("revenue", "revenue"),
)
"""Over everybody assigned, also who did nothing."""

RATIOS = (
    Metric("time / session", "time", "sessions"),
    Metric("tracks / session", "tracks", "sessions"),
    Metric("clicks / shown item", "clicks", "shown"),
    Metric("revenue / purchase", "revenue", "purchases"),
)

GUARDRAIL_RATIOS = (
    Metric("latency_ms / answer", "answering_ms", "answers", better="lower"),
    Metric("fallback / slate", "fallback", "slates", better="lower"),
    Metric("degraded / slate", "degraded", "slates", better="lower"),
)


def measurable(metrics: Sequence[Metric], sums: pl.DataFrame) -> list[Metric]:
    """Narrow to those that the log has something of."""
    totals: Mapping[str, float] = {
        name: float(sums[name].sum())
        for name in sums.columns
        if name != "user_id" and sums[name].dtype.is_numeric()
    }
    return [
        metric
        for metric in metrics
        if all(totals[name] > 0 for name in (metric.top, metric.bottom, metric.among) if name is not None)
    ]
