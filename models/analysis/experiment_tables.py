"""Experiments as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.table import Table

from models.analysis.experiment import Comparison, Experiment

_COLOURS = {"better": "green", "worse": "red", "no difference": ""}


def metric_table(experiment: Experiment) -> Table:
    """A row a metric and treatment, as in botify's analysis: effect and its interval in % of the control's mean."""
    split = " · ".join(f"{name} {users:,}" for name, users in experiment.users.items())
    table = Table(
        title=f"{experiment.name}: users {split}; control {experiment.treatments[0]}", title_justify="left"
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("treatment", no_wrap=True)
    for name in (
        "control",
        "mean",
        "effect %",
        "lower %",
        "upper %",
        "p",
        "always-valid p",
        "CUPED %",
        "MDE %",
    ):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for one in experiment.comparisons:
        table.add_row(*_cells(one))
    return table


def guardrail_table(experiment: Experiment) -> Table:
    """What must not get worse, by treatment."""
    table = Table(title="guardrails", title_justify="left")
    table.add_column("treatment", no_wrap=True)
    for name in ("p50 ms", "p99 ms", *(dict.fromkeys(one.metric.name for one in experiment.guardrails))):
        table.add_column(name, justify="right")
    latency = {one.treatment: one for one in experiment.latency}
    for treatment in experiment.treatments:
        times = latency.get(treatment)
        table.add_row(
            treatment,
            *(("-", "-") if times is None else (f"{times.p50:.2f}", f"{times.p99:.2f}")),
            *guarded(experiment, treatment),
        )
    return table


def guarded(experiment: Experiment, treatment: str) -> Iterable[str]:
    """A guardrail's value in a treatment, and its p where that is not the control."""
    for name in dict.fromkeys(one.metric.name for one in experiment.guardrails):
        rows = [one for one in experiment.guardrails if one.metric.name == name]
        mine = [one for one in rows if one.treatment == treatment]
        if treatment == experiment.treatments[0]:
            yield number(rows[0].difference.control)
        elif mine:
            yield f"{number(mine[0].difference.treatment)} (p {chance(mine[0].difference.p)})"
        else:
            yield "-"


def _cells(one: Comparison) -> list[str]:
    difference = one.difference
    adjusted = "-"
    if one.adjusted is not None:
        # In % of the same control as the effect beside it, else the two could not be compared.
        effect, lower, upper = (
            percent(difference.percent(value))
            for value in (one.adjusted.effect, one.adjusted.lower, one.adjusted.upper)
        )
        adjusted = f"{effect} [{lower}, {upper}]"
    colour = _COLOURS[one.verdict]
    return [
        one.metric.name,
        one.treatment,
        number(difference.control),
        number(difference.treatment),
        *(
            percent(difference.percent(value))
            for value in (difference.effect, difference.lower, difference.upper)
        ),
        chance(difference.p),
        chance(one.always_valid_p),
        adjusted,
        percent(difference.percent(one.detectable), sign=False),
        f"[{colour}]{one.verdict}[/{colour}]" if colour else one.verdict,
    ]


def number(value: float) -> str:
    """A mean: four significant digits, thousands in full."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(value: float | None, *, sign: bool = True) -> str:
    """A percentage; a dash where there is no control to refer to."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def chance(p: float) -> str:
    """A p-value."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
