"""What a ranker listens to, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup

from models.drawing import INK, RC, as_svg, panels
from models.page import page

DRAWN = 20
"""Features in the picture; the table has all."""


def report(contributions: Mapping[str, float], title: str, facts: Mapping[str, str]) -> str:
    """HTML of the mean |SHAP| by feature, the largest first. `facts`: what else the page says, by its name."""
    total = sum(contributions.values()) or 1.0
    rows = [(name, f"{value:.5f}", f"{value / total:.1%}") for name, value in contributions.items()]
    picture = Markup(_bars(dict(list(contributions.items())[:DRAWN])))  # noqa: S704 (made here of escaped parts)
    return page(
        Path(__file__).parent / "report.html.j2", title=title, facts=facts, rows=rows, picture=picture
    )


def _bars(shown: Mapping[str, float]) -> str:
    figure, (axes,) = panels(1, 8.6, 0.26 * max(len(shown), 1) + 0.85)
    with mpl.rc_context(RC):
        places = np.arange(len(shown))[::-1]
        axes.barh(places, list(shown.values()), color="#2563a8", height=0.62)
        axes.set_yticks(places, list(shown))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mean |SHAP|, in units of the score")
    return as_svg(figure, "contributions")
