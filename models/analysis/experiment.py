"""What an experiment changed: every metric of every treatment against the control, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from models.analysis import metrics as known
from models.analysis.log import collected
from models.analysis.metrics import Metric, measurable
from models.analysis.sequential import always_valid_p, confidence_sequence
from models.analysis.statistics import (
    Difference,
    SampleRatio,
    bootstrap_ratios,
    cuped,
    detectable,
    ratio_difference,
    required_users,
    sample_ratio,
    welch,
)
from models.analysis.users import Assigned, user_sums
from service.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choices:
    """What is decided before looking. `detect`: the difference, in % of the control, that must be found with `power`.

    `planned`: users in two groups at which the sequential interval is narrowest.
    """

    alpha: float = 0.05
    power: float = 0.8
    detect: float = 5.0
    planned: int = 10_000
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of a treatment against the control. `variances`: of one user (ratio metrics: of a user's part).

    `detectable`: in the metric's unit; `required`: users a group to detect `Choices.detect`, None where the metric does
    not vary. `bootstrap`: ratio metrics only; `adjusted` (CUPED) and `reduction`, the share of the variance that it
    removed: means with a past only.
    """

    metric: Metric
    treatment: str
    users: tuple[int, int]
    variances: tuple[float, float]
    difference: Difference
    always_valid_p: float
    sequence: tuple[float, float]
    detectable: float
    required: int | None
    bootstrap: tuple[float, float] | None = None
    adjusted: Difference | None = None
    reduction: float | None = None

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference`, by the interval at this one look."""
        if not self.difference.significant:
            return "no difference"
        return "better" if (self.difference.effect > 0) == (self.metric.better == "higher") else "worse"

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values; effect, lower and upper in % of the control."""
        one = self.difference
        return {
            "metric": self.metric.name,
            "treatment": self.treatment,
            "users": list(self.users),
            "control_mean": one.control,
            "treatment_mean": one.treatment,
            "variances": list(self.variances),
            "effect": one.percent(one.effect),
            "lower": one.percent(one.lower),
            "upper": one.percent(one.upper),
            "absolute": [one.effect, one.lower, one.upper],
            "p": one.p,
            "significant": one.significant,
            "verdict": self.verdict,
            "always_valid_p": self.always_valid_p,
            "confidence_sequence": [one.percent(bound) for bound in self.sequence],
            "bootstrap": None if self.bootstrap is None else [one.percent(bound) for bound in self.bootstrap],
            "cuped": None
            if self.adjusted is None
            else {
                "effect": one.percent(self.adjusted.effect),
                "lower": one.percent(self.adjusted.lower),
                "upper": one.percent(self.adjusted.upper),
                "p": self.adjusted.p,
                "significant": self.adjusted.significant,
                "variance_removed": self.reduction,
            },
            "detectable": one.percent(self.detectable),
            "required_users": self.required,
        }


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds to answer, over all answers of a treatment."""

    treatment: str
    answers: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment, read. `treatments`: the control first. `past_users`: who have records from before it began."""

    name: str
    treatments: tuple[str, ...]
    users: Mapping[str, int]
    mixed: int
    began_ms: int
    past_users: int
    split: SampleRatio | None
    comparisons: tuple[Comparison, ...]
    guardrails: tuple[Comparison, ...]
    latency: tuple[Latency, ...]

    @property
    def alarms(self) -> list[str]:
        """What a reader must know before they believe the numbers, and what got worse that must not."""
        found = []
        if self.split is not None and self.split.mismatch:
            found.append(
                f"sample ratio mismatch (p = {self.split.p:.2g}): users were not divided as declared; "
                "find out why before believing any effect"
            )
        if self.mixed:
            found.append(f"{self.mixed:,} users were seen under several treatments and are left out")
        found += [
            f"{one.treatment}: {one.metric.name} got worse, {one.difference.control:.4g} to "
            f"{one.difference.treatment:.4g} (p = {one.difference.p:.2g})"
            for one in self.guardrails
            if one.verdict == "worse"
        ]
        return found

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values."""
        return {
            "experiment": self.name,
            "control": self.treatments[0],
            "began": datetime.fromtimestamp(self.began_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "users": dict(self.users),
            "mixed_users": self.mixed,
            "past_users": self.past_users,
            "sample_ratio": None
            if self.split is None
            else {"chi2": self.split.chi2, "p": self.split.p, "mismatch": self.split.mismatch},
            "metrics": [one.as_json() for one in self.comparisons],
            "guardrails": [one.as_json() for one in self.guardrails],
            "latency": {
                one.treatment: {"answers": one.answers, "p50_ms": one.p50, "p99_ms": one.p99}
                for one in self.latency
            },
            "alarms": self.alarms,
        }


def analyse(
    events: pl.LazyFrame,
    assigned: Assigned,
    choices: Choices,
    *,
    weights: Mapping[str, float] | None = None,
    began_ms: int | None = None,
    ended_ms: int | None = None,
) -> Experiment:
    """Compare every treatment with the control over [began_ms, ended_ms); what came before is the past for CUPED.

    weights: declared share by treatment; None: equal shares. began_ms: None: the experiment's first record. Raises
    InputError where the declared treatments are not those of the log.
    """
    began = assigned.began_ms if began_ms is None else began_ms
    time = pl.col("timestamp_ms")
    during = events.filter(time >= began)
    if ended_ms is not None:
        during = during.filter(time < ended_ms)
    sums = assigned.users.join(user_sums(during), on="user_id", how="inner")
    past = assigned.users.join(user_sums(events.filter(time < began)), on="user_id", how="inner")
    counts = {
        name: int((sums["treatment"] == name).sum())
        for name in dict.fromkeys((*assigned.treatments, *(weights or ())))
    }
    groups = _Groups(sums, past, assigned.treatments, choices)
    return Experiment(
        assigned.experiment,
        assigned.treatments,
        counts,
        assigned.mixed,
        began,
        len(past),
        _split(counts, weights, assigned.experiment),
        tuple(groups.means() + groups.ratios(measurable(known.RATIOS, sums))),
        tuple(groups.ratios(known.GUARDRAIL_RATIOS)),
        _latency(during, assigned),
    )


def _split(users: dict[str, int], weights: Mapping[str, float] | None, experiment: str) -> SampleRatio | None:
    if weights is not None:
        unknown = sorted(name for name in users if name not in weights)
        if unknown:
            raise InputError(
                f"experiment {experiment}: the log has treatment {unknown[0]!r}, declared are {', '.join(weights)}"
            )
        shown_to_nobody = sorted(name for name, weight in weights.items() if weight <= 0 and users[name])
        if shown_to_nobody:
            raise InputError(
                f"experiment {experiment}: treatment {shown_to_nobody[0]!r} has users but no share of them"
            )
        users = {name: n for name, n in users.items() if weights[name] > 0}
    shares = {name: 1.0 if weights is None else weights[name] for name in users}
    return sample_ratio(users, shares) if len(users) > 1 and any(users.values()) else None


class _Groups:
    """The users by treatment, and one comparison after another."""

    def __init__(
        self, sums: pl.DataFrame, past: pl.DataFrame, treatments: Sequence[str], choices: Choices
    ) -> None:
        self._sums, self._choices = sums, choices
        self._past = sums.select("user_id").join(past, on="user_id", how="left", maintain_order="left")
        self._rows = {name: (sums["treatment"] == name).to_numpy() for name in treatments}
        self._control, *self._others = treatments

    def means(self) -> list[Comparison]:
        """Compare means over users: Welch, and CUPED where users have a past."""
        found = []
        for metric in measurable((*known.SESSION_MEANS, *known.FEEDBACK_MEANS), self._sums):
            values = metric.of_users(self._sums)
            past = metric.of_users(self._past.fill_null(0.0))
            past[self._past["treatment"].is_null().to_numpy()] = np.nan
            for treatment in self._others:
                sides = [self._rows[name] & np.isfinite(values) for name in (self._control, treatment)]
                difference = welch(values[sides[0]], values[sides[1]], alpha=self._choices.alpha)
                if difference is None:
                    continue
                adjusted = cuped(*((values[side], past[side]) for side in sides))
                found.append(
                    self._comparison(
                        metric,
                        treatment,
                        difference,
                        [values[side] for side in sides],
                        adjusted=None
                        if adjusted is None
                        else welch(adjusted.control, adjusted.treatment, alpha=self._choices.alpha),
                        reduction=None if adjusted is None else adjusted.reduction,
                    )
                )
        return found

    def ratios(self, metrics: Sequence[Metric]) -> list[Comparison]:
        """Compare ratios of sums: delta method and bootstrap over users."""
        c = self._choices
        found: dict[tuple[int, int], Comparison] = {}
        for order, treatment in enumerate(self._others):
            sides = [
                [tuple(part[self._rows[name]] for part in metric.parts(self._sums)) for metric in metrics]
                for name in (self._control, treatment)
            ]
            known = [
                (number, metric, one, (c_side, t_side))
                for number, (metric, c_side, t_side) in enumerate(zip(metrics, *sides, strict=True))
                if (one := ratio_difference(c_side, t_side, alpha=c.alpha)) is not None
            ]
            if not known:
                continue
            intervals = bootstrap_ratios(
                *([pair[side] for *_, pair in known] for side in (0, 1)),
                alpha=c.alpha,
                resamples=c.resamples,
                seed=c.seed,
            )
            for (number, metric, one, pair), interval in zip(known, intervals, strict=True):
                ratios = (one.control, one.treatment)
                parts = [
                    (top - r * bottom) / bottom.mean() for (top, bottom), r in zip(pair, ratios, strict=True)
                ]
                found[number, order] = self._comparison(metric, treatment, one, parts, bootstrap=interval)
        return [found[key] for key in sorted(found)]

    def _comparison(
        self, metric: Metric, treatment: str, difference: Difference, values: Sequence[Floats], **more: Any
    ) -> Comparison:
        c = self._choices
        users = len(values[0]), len(values[1])
        variances = float(values[0].var(ddof=1)), float(values[1].var(ddof=1))
        wanted = abs(difference.control) * c.detect / 100
        return Comparison(
            metric,
            treatment,
            users,
            variances,
            difference,
            always_valid_p(difference, sum(users), c.planned, alpha=c.alpha),
            confidence_sequence(difference, sum(users), c.planned, alpha=c.alpha),
            detectable(difference.standard_error, alpha=c.alpha, power=c.power),
            required_users(variances, wanted, alpha=c.alpha, power=c.power)
            if wanted and any(variances)
            else None,
            **more,
        )


def _latency(during: pl.LazyFrame, assigned: Assigned) -> tuple[Latency, ...]:
    time = pl.col("latency_ms")
    found = collected(
        during.filter(time.is_not_null())
        .join(assigned.users.lazy(), on="user_id")
        .group_by("treatment")
        .agg(pl.len().alias("answers"), time.quantile(0.5).alias("p50"), time.quantile(0.99).alias("p99"))
    )
    rows = {row["treatment"]: row for row in found.iter_rows(named=True)}
    return tuple(Latency(**rows[name]) for name in assigned.treatments if name in rows)
