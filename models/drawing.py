"""Pictures as SVG that can stand inside an HTML page: no prolog, no addresses, stable bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE = "#1f2933", "#66727f", "#d5dbe1"
COLOURS = ("#2563a8", "#d9822b", "#2f8f5b", "#8a4fb5", "#c23b4b", "#4aa3b8", "#8c6d46", "#6b7280")
"""One a thing compared, in the page's order; told apart also by style or label."""
RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "path",
}


def colour_of(number: int) -> str:
    """The colour of the thing at that place of the page."""
    return COLOURS[number % len(COLOURS)]


def panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure of panels side by side, each of that size in inches."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width * count, height), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)
    return figure, list(axes[0])


def as_svg(figure: Figure, name: str) -> str:
    """Write the figure as one svg element; `name` keeps its ids apart from those of others on the page."""
    target = io.StringIO()
    metadata: Mapping[str, str | None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(target, format="svg", metadata=metadata, transparent=True)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # inside HTML an svg element needs none
    # Ids are unique in a figure only; several figures share the page.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return re.sub(r'<svg\b[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1)
