"""A/A: users are divided at random again and again, and nothing may come of it more often than alpha says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from models.analysis.metrics import FEEDBACK_MEANS, RATIOS, SESSION_MEANS, Metric, measurable
from service.errors import InputError

Floats = npt.NDArray[np.float64]
_CELLS = 8_000_000
"""Users by divisions held at once: bounds memory at ~100 MB whatever the population."""
_ALARM = 0.001


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """How often a metric differed significantly between groups that nothing but chance told apart.

    `lower`, `upper`: exact 95% interval of the rate (Clopper & Pearson 1934, Biometrika 26). `p_values`: float64
    (divisions,). `chance`: two-sided binomial probability of a count as odd, were the rate alpha, times the number of
    metrics looked at (Bonferroni).
    """

    metric: Metric
    users: int
    alpha: float
    p_values: Floats
    positives: int
    lower: float
    upper: float
    chance: float

    @property
    def rate(self) -> float:
        """Share of divisions with a significant difference."""
        return self.positives / len(self.p_values)

    @property
    def calibrated(self) -> bool:
        """Whether the rate can be alpha."""
        return self.chance >= _ALARM

    @property
    def verdict(self) -> str:
        """`as it must be`, `finds too much` or `finds too little`."""
        if self.calibrated:
            return "as it must be"
        return "finds too much" if self.rate > self.alpha else "finds too little"

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values."""
        return {
            "metric": self.metric.name,
            "users": self.users,
            "false_positives": self.positives,
            "rate": self.rate,
            "lower": self.lower,
            "upper": self.upper,
            "calibrated": self.calibrated,
            "verdict": self.verdict,
        }


def false_positives(
    sums: pl.DataFrame, *, repeats: int = 1000, seed: int = 0, alpha: float = 0.05
) -> list[FalsePositives]:
    """Divide users into halves `repeats` times, and test every metric of the report as the report does.

    sums: `models.analysis.users.user_sums`. Raises InputError where there are too few users or metrics to divide.
    """
    means = [
        metric
        for metric in measurable((*SESSION_MEANS, *FEEDBACK_MEANS), sums)
        if np.nanstd(metric.of_users(sums)) > 0  # where all are alike no division can differ
    ]
    ratios = measurable(RATIOS, sums)
    columns = {metric: _moments_of_mean(metric.of_users(sums)) for metric in means}
    columns |= {metric: _moments_of_ratio(*metric.parts(sums)) for metric in ratios}
    if not columns or len(sums) < 4:
        raise InputError("--events: nothing to divide: the log has too few users with sessions or feedback")
    p_values: dict[Metric, list[Floats]] = {metric: [] for metric in columns}
    rng = np.random.default_rng(seed)
    chunk = max(1, min(repeats, _CELLS // len(sums)))
    for start in range(0, repeats, chunk):
        size = min(chunk, repeats - start)
        treated = (rng.random((size, len(sums))) < 0.5).astype(np.float64)
        for metric, moments in columns.items():
            sides = [moments.sum(axis=0) - (inside := treated @ moments), inside]
            p_values[metric].append(_welch_p(sides) if metric in means else _ratio_p(sides))
    return [
        _found(metric, columns[metric], np.concatenate(p), alpha, len(columns))
        for metric, p in p_values.items()
    ]


def _found(metric: Metric, moments: Floats, p: Floats, alpha: float, looked_at: int) -> FalsePositives:
    positives = int((p < alpha).sum())
    test = stats.binomtest(positives, len(p), alpha)
    interval = test.proportion_ci(0.95, method="exact")
    users = int(moments[:, 0].sum())
    return FalsePositives(
        metric,
        users,
        alpha,
        p,
        positives,
        interval.low,
        interval.high,
        min(1.0, looked_at * float(test.pvalue)),
    )


def _moments_of_mean(values: Floats) -> Floats:
    """float64 (n_users, 3): whether the user is in it, and first and second power, taken around the mean."""
    inside = np.isfinite(values)
    centred = np.where(inside, values - values[inside].mean(), 0.0)
    return np.column_stack((inside, centred, centred**2))


def _moments_of_ratio(top: Floats, bottom: Floats) -> Floats:
    """float64 (n_users, 6): 1, numerator, denominator, their squares and product."""
    return np.column_stack((np.ones(len(top)), top, bottom, top**2, bottom**2, top * bottom))


def _welch_p(sides: Sequence[Floats]) -> Floats:
    """Probabilities of Welch's test; sides: float64 (divisions, 3), sums of `_moments_of_mean`."""
    means, parts, degrees = [], [], []
    for side in sides:
        n = np.maximum(side[:, 0], 2.0)  # a half with fewer comes of no sensible log, and must not warn
        mean = side[:, 1] / n
        means.append(mean)
        parts.append(np.maximum(side[:, 2] / n - mean**2, 0.0) / (n - 1))
        degrees.append(n - 1)
    variance = parts[0] + parts[1]
    safe = np.where(variance > 0, variance, 1.0)
    freedom = safe**2 / np.maximum(parts[0] ** 2 / degrees[0] + parts[1] ** 2 / degrees[1], 1e-300)
    p = 2.0 * stats.t.sf(np.abs(means[1] - means[0]) / np.sqrt(safe), freedom)
    return np.where(variance > 0, p, 1.0)


def _ratio_p(sides: Sequence[Floats]) -> Floats:
    """Probabilities by the delta method; sides: float64 (divisions, 6), sums of `_moments_of_ratio`."""
    ratios, variances = [], []
    for side in sides:
        n, top, bottom, top2, bottom2, both = side.T
        known = bottom > 0
        ratio = np.divide(top, bottom, out=np.zeros(len(n)), where=known)
        squares = np.maximum(top2 - 2 * ratio * both + ratio**2 * bottom2, 0.0)
        # The parts of a ratio's error sum to 0, so their mean square is their variance.
        scale = np.divide(n, bottom, out=np.zeros(len(n)), where=known) ** 2
        ratios.append(ratio)
        variances.append(squares * scale / np.maximum(n - 1, 1.0) / np.maximum(n, 1.0))
    variance = variances[0] + variances[1]
    z = np.abs(ratios[1] - ratios[0]) / np.sqrt(np.where(variance > 0, variance, 1.0))
    return np.where(variance > 0, 2.0 * stats.norm.sf(z), 1.0)
