"""Confidence intervals by resampling users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CELLS = 4_000_000
"""Resampled users held at once: bounds memory at ~100 MB whatever the population."""


@dataclass(frozen=True, slots=True)
class PerUser:
    """A metric as a ratio of sums over users: `total.sum() / weight.sum()`.

    total, weight: float64 (n_users,). A plain mean over users has weight 1 everywhere; a mean over
    recommended places weighs a user by the places they got; weight 0 leaves a user out.
    """

    total: Floats
    weight: Floats

    @classmethod
    def mean_of(cls, values: Floats) -> PerUser:
        """Mean over all users of one value each."""
        return cls(values, np.ones(len(values)))

    @property
    def value(self) -> float:
        """The metric; NaN when no user carries weight."""
        weight = float(self.weight.sum())
        return float(self.total.sum()) / weight if weight else float("nan")

    def select(self, users: npt.NDArray[np.integer]) -> PerUser:
        """Narrow the metric to some of the users."""
        return PerUser(self.total[users], self.weight[users])


def confidence_intervals(
    metrics: dict[str, PerUser], *, confidence: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over users (Efron & Tibshirani 1993, section 13.3): name -> (low, high).

    All metrics share one set of resamples, so their intervals are comparable; equal seeds give equal
    intervals. A metric that no user carries weight for is left out.
    """
    named = {name: metric for name, metric in metrics.items() if metric.weight.any()}
    if not named:
        return {}
    sums = np.column_stack([column for m in named.values() for column in (m.total, m.weight)])
    n_users = len(sums)
    rng = np.random.default_rng(seed)
    chunk = max(1, min(n_resamples, _CELLS // n_users))
    resampled = np.empty((n_resamples, sums.shape[1]))
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        drawn = rng.integers(0, n_users, (size, n_users)) + (np.arange(size) * n_users)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n_users).reshape(size, n_users)
        resampled[start : start + size] = times @ sums
    totals, weights = resampled[:, 0::2], resampled[:, 1::2]
    # A resample may miss every user that carries weight: it says nothing of that metric.
    ratios = np.divide(totals, weights, out=np.full_like(totals, np.nan), where=weights > 0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(ratios, [tail, 1.0 - tail], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(named)}
