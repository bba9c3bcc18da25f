"""The pictures of the analysis pages."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from models.analysis.experiment import Comparison
from models.drawing import INK, LINE, MUTED, RC, as_svg, panels

BETTER, WORSE = "#2f8f5b", "#c23b4b"


def forest(comparisons: Sequence[Comparison], name: str) -> str:
    """A row a metric and treatment: effect in % with its interval; pale behind it, the interval valid at every look."""
    shown = [one for one in comparisons if one.difference.control]
    figure, (axes,) = panels(1, 8.6, 0.32 * len(shown) + 0.85)
    with mpl.rc_context(RC):
        places = np.arange(len(shown))[::-1]
        reach = 1e-9
        for place, one in zip(places, shown, strict=True):
            effect, lower, upper, early, late = (
                100.0 * value / one.difference.control
                for value in (
                    one.difference.effect,
                    one.difference.lower,
                    one.difference.upper,
                    *one.sequence,
                )
            )
            colour = {"better": BETTER, "worse": WORSE}.get(one.verdict, MUTED)
            axes.hlines(place, early, late, color=LINE, linewidth=7)
            axes.hlines(place, lower, upper, color=colour, linewidth=2)
            axes.plot(effect, place, "o", color=colour, markersize=5)
            reach = max(reach, abs(early), abs(late))
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, [f"{one.metric.name}  {one.treatment}" for one in shown])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.set_xlim(-1.05 * reach, 1.05 * reach)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("treatment minus control, % of the control")
    return as_svg(figure, name)


def p_values(p: npt.NDArray[np.float64], name: str) -> str:
    """Histogram of p-values beside what they must look like where there is no difference."""
    figure, (axes,) = panels(1, 5.2, 1.9)
    with mpl.rc_context(RC):
        axes.hist(p, bins=np.linspace(0, 1, 21).tolist(), color="#2563a8", alpha=0.85, rwidth=0.92)
        axes.axhline(len(p) / 20, color=INK, linewidth=1, linestyle="--")
        axes.set_xlim(0, 1)
        axes.set_xlabel("p-value; dashed: as many everywhere")
    return as_svg(figure, name)
