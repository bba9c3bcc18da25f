"""The statistics of two groups: differences with intervals, ratios, variance reduction, sample ratio, sample size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
_CELLS = 4_000_000
"""Resampled users held at once: bounds memory at ~60 MB whatever the population."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Treatment minus control, in the metric's unit, with an interval of confidence 1 - alpha.

    `standard_error` of `effect`; `degrees`: of freedom (infinite for a normal interval); `p`: two-sided, that there is
    no difference.
    """

    control: float
    treatment: float
    effect: float
    lower: float
    upper: float
    standard_error: float
    degrees: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lower > 0 or self.upper < 0

    def percent(self, value: float) -> float | None:
        """Express a difference as % of the control; None where the control is 0."""
        return 100.0 * value / self.control if self.control else None


def welch(control: Floats, treatment: Floats, *, alpha: float = 0.05) -> Difference | None:
    """Difference of means with Welch's t interval; degrees of freedom by Satterthwaite (Welch 1947, Biometrika 34).

    control, treatment: float64 (n,), one value a user. None where a group has fewer than two, or neither varies and yet
    they differ: nothing then says how surely.
    """
    if min(len(control), len(treatment)) < 2:
        return None
    means = float(control.mean()), float(treatment.mean())
    parts = float(control.var(ddof=1)) / len(control), float(treatment.var(ddof=1)) / len(treatment)
    variance = sum(parts)
    if variance <= 0.0:
        return _difference(means, 0.0, math.inf, alpha) if means[0] == means[1] else None
    degrees = variance**2 / (parts[0] ** 2 / (len(control) - 1) + parts[1] ** 2 / (len(treatment) - 1))
    return _difference(means, math.sqrt(variance), degrees, alpha)


def ratio_difference(
    control: tuple[Floats, Floats], treatment: tuple[Floats, Floats], *, alpha: float = 0.05
) -> Difference | None:
    """Difference of two ratios of sums, sum(numerator) / sum(denominator), users being what is independent.

    Variance by the delta method (Deng, Knoblich, Lu 2018, "Applying the Delta Method in Metric Analytics", section 3);
    normal interval. Each side: (numerator, denominator), float64 (n_users,). None where a side says nothing.
    """
    sides = [_ratio(*control), _ratio(*treatment)]
    if None in sides:
        return None
    (r_c, v_c), (r_t, v_t) = (side for side in sides if side is not None)
    if v_c + v_t <= 0.0 and r_c != r_t:
        return None
    return _difference((r_c, r_t), math.sqrt(v_c + v_t), math.inf, alpha)


def _ratio(numerator: Floats, denominator: Floats) -> tuple[float, float] | None:
    total = float(denominator.sum())
    if len(numerator) < 2 or total <= 0.0:
        return None
    ratio = float(numerator.sum()) / total
    # Linearised: each user's part in the ratio's error.
    parts = (numerator - ratio * denominator) / (total / len(numerator))
    return ratio, float(parts.var(ddof=1)) / len(numerator)


def _difference(means: tuple[float, float], error: float, degrees: float, alpha: float) -> Difference:
    effect = means[1] - means[0]
    if error == 0.0:
        return Difference(*means, effect, effect, effect, 0.0, degrees, 1.0)
    law = stats.norm if math.isinf(degrees) else stats.t(degrees)
    half = float(law.ppf(1 - alpha / 2)) * error
    p = 2.0 * float(law.sf(abs(effect) / error))
    return Difference(*means, effect, effect - half, effect + half, error, degrees, p)


def bootstrap_ratios(
    control: Sequence[tuple[Floats, Floats]],
    treatment: Sequence[tuple[Floats, Floats]],
    *,
    alpha: float = 0.05,
    resamples: int = 1000,
    seed: int = 0,
) -> list[tuple[float, float] | None]:
    """Percentile bootstrap over users of differences of ratios of sums (Efron & Tibshirani 1993, 13.3).

    control, treatment: a metric after another, each as `ratio_difference` takes it; all share the resamples. Returns
    (lower, upper) of each; None where a side has no denominator.
    """
    rng = np.random.default_rng(seed)
    drawn = _resampled(treatment, resamples, rng) - _resampled(control, resamples, rng)
    return [
        None
        if c[1].sum() <= 0 or t[1].sum() <= 0
        else (float(np.nanquantile(column, alpha / 2)), float(np.nanquantile(column, 1 - alpha / 2)))
        for c, t, column in zip(control, treatment, drawn.T, strict=True)
    ]


def _resampled(metrics: Sequence[tuple[Floats, Floats]], resamples: int, rng: np.random.Generator) -> Floats:
    """float64 (resamples, n_metrics): the ratios; NaN where a resample has no denominator."""
    n = len(metrics[0][0])
    sums = np.column_stack([column for metric in metrics for column in metric])
    found = np.empty((resamples, sums.shape[1]))
    chunk = max(1, min(resamples, _CELLS // max(n, 1)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, n, (size, n)) + (np.arange(size) * n)[:, None]
        found[start : start + size] = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) @ sums
    ratios: Floats = np.full((resamples, len(metrics)), np.nan)
    return np.divide(found[:, 0::2], found[:, 1::2], out=ratios, where=found[:, 1::2] > 0)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Metrics with what was known before the experiment taken out. `reduction`: share of the variance removed."""

    control: Floats
    treatment: Floats
    theta: float
    reduction: float
    covered: float
    """Share of users who have a value from before."""


def cuped(control: tuple[Floats, Floats], treatment: tuple[Floats, Floats]) -> Adjusted | None:
    """Adjust by the same metric before the experiment (Deng, Xu, Kohavi, Walker 2013, WSDM, section 3.2).

    Each side: (metric, covariate), float64 (n_users,); a NaN covariate is a user with no past, who gets the mean of the
    others, and so stays as is. One theta = cov(metric, covariate) / var(covariate) for both groups together, each taken
    around its own means. None where the covariate tells nothing.
    """
    sides = (control, treatment)
    past = np.concatenate([x for _, x in sides])
    known = np.isfinite(past)
    if known.sum() < 3:
        return None
    middle = float(past[known].mean())
    filled = [np.where(np.isfinite(x), x, middle) for _, x in sides]
    spread = sum(float(((x - x.mean()) ** 2).sum()) for x in filled)
    if spread <= 0.0:
        return None
    together = sum(
        float(((y - y.mean()) * (x - x.mean())).sum()) for (y, _), x in zip(sides, filled, strict=True)
    )
    theta = together / spread
    adjusted = [y - theta * (x - middle) for (y, _), x in zip(sides, filled, strict=True)]
    before = sum(float(((y - y.mean()) ** 2).sum()) for y, _ in sides)
    after = sum(float(((y - y.mean()) ** 2).sum()) for y in adjusted)
    reduction = 1.0 - after / before if before > 0 else 0.0
    return Adjusted(adjusted[0], adjusted[1], theta, reduction, float(known.mean()))


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether users fell to the treatments as declared. `p` below `threshold`: don't trust the experiment."""

    users: dict[str, int]
    expected: dict[str, float]
    chi2: float
    p: float
    threshold: float = 0.001

    @property
    def mismatch(self) -> bool:
        """Whether the split is not the declared one."""
        return self.p < self.threshold


def sample_ratio(users: dict[str, int], weights: dict[str, float]) -> SampleRatio:
    """Pearson's chi-squared test of the split (Fabijan et al. 2019, KDD, "Diagnosing Sample Ratio Mismatch").

    users: users by treatment. weights: declared share by treatment, in any unit, over the same names; at least two.
    """
    total, whole = sum(users.values()), sum(weights.values())
    expected = {name: total * weights[name] / whole for name in users}
    chi2, p = stats.chisquare(list(users.values()), list(expected.values()))
    return SampleRatio(users, expected, float(chi2), float(p))


def detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference found with that power (Kohavi, Tang, Xu 2020, section 17.6), in the metric's unit."""
    return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * standard_error


def required_users(
    variances: Sequence[float], difference: float, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Users a group needs to find a difference with that power; variances: of one user's metric in either group."""
    quantiles = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return math.ceil(sum(variances) * (quantiles / difference) ** 2)
