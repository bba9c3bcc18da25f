"""Is one audience happier than another, or was it chance? Welch's test on users' mean time per session."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.figures import Figure

METRIC = "user_time_per_session"


@dataclass(frozen=True, slots=True)
class Effect:
    """Difference of a treatment's mean to a control's, with its confidence interval, in percent of the control's mean.

    A difference is significant when the interval leaves 0 out.
    """

    control: float
    treatment: float
    effect: float
    lower: float
    upper: float

    @property
    def significant(self) -> bool:
        """Whether chance is ruled out at the interval's level."""
        return not self.lower <= 0 <= self.upper

    def as_json(self) -> dict[str, Any]:
        """Keys as botify's analysis has them."""
        return {
            "control": self.control,
            "treatment": self.treatment,
            "effect": self.effect,
            "lower": self.lower,
            "upper": self.upper,
            "significant": self.significant,
        }

    def __str__(self) -> str:
        verdict = "significant" if self.significant else "not significant"
        return (
            f"{self.effect:+.1f}% [{self.lower:+.1f}%, {self.upper:+.1f}%] ({verdict}): "
            f"{self.control:.3f} -> {self.treatment:.3f}"
        )


def welch(control: Figure, treatment: Figure, *, alpha: float = 0.05) -> Effect:
    """Compare means of unequal variances: t interval with Satterthwaite's degrees of freedom.

    Raises SimulatorError with fewer than two users on a side, or a control whose mean is 0.
    """
    from scipy.stats import t as student  # noqa: PLC0415 - a comparison needs it, a simulation doesn't

    if control.variance is None or treatment.variance is None or control.mean == 0:
        raise SimulatorError("a comparison needs two users or more on each side, and a control above 0")
    parts = (control.variance / control.n, treatment.variance / treatment.n)
    difference, spread = treatment.mean - control.mean, sum(parts)
    half = 0.0
    if spread > 0:
        freedom = spread**2 / (parts[0] ** 2 / (control.n - 1) + parts[1] ** 2 / (treatment.n - 1))
        half = float(student.ppf(1 - alpha / 2, freedom)) * math.sqrt(spread)
    percent = 100 / control.mean
    return Effect(
        control.mean,
        treatment.mean,
        difference * percent,
        (difference - half) * percent,
        (difference + half) * percent,
    )


def read_baseline(path: Path) -> Figure:
    """Read the figure to compare with from a saved result: a file whose last line is the JSON of `reco simulate`."""
    if find_spec("scipy") is None:
        raise SimulatorError("a comparison needs scipy: pip install 'reco-service[sim]'")
    lines = path.read_text("utf-8").strip().splitlines()
    try:
        figure = json.loads(lines[-1])[METRIC]
        read = Figure(float(figure["mean"]), float(figure["var"]), int(figure["n"]))
    except (IndexError, KeyError, TypeError, ValueError):
        raise SimulatorError(
            f"{path}: its last line is no result of 'reco simulate' with two users or more"
        ) from None
    return read


def worse(effect: Effect, fail_below: float) -> bool:
    """Whether people leave earlier: significantly, and by so much that the ratio of means is below `fail_below`."""
    return effect.upper < 0 and effect.treatment < fail_below * effect.control
