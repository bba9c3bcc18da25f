"""What the loop came to: a table, one JSON object, and a page with a picture."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtest.simulator.comparison import Effect
from loadtest.simulator.figures import Figure

_COLUMNS = (
    "day",
    "served",
    "time/session",
    "± sem",
    "tracks/session",
    "likes so far",
    "order before",
    "order new",
)


@dataclass(frozen=True, slots=True)
class DayReport:
    """A day and the night after it.

    served: the model and bundle, or the rule, that answered. likes: of all days so far. order_before, order_after: of
    what served and of the best candidate, the share of a sitting's tracks that it puts into the order in which they
    were heard, on the day's last fifth, which neither has seen (`loadtest.loop.choice`); candidates: that of each.
    chosen, published: the best, and its bundle, if it was published. reload_s: until the running service answered.
    """

    day: int
    served: str
    sessions: int
    time_per_session: Figure
    tracks_per_session: Figure
    users: Figure
    likes: int = 0
    order_before: float | None = None
    order_after: float | None = None
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: str | None = None
    published: str | None = None
    reload_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Keys are the fields' names."""
        figures = {
            name: getattr(self, name).as_json()
            for name in ("time_per_session", "tracks_per_session", "users")
        }
        return {**asdict(self), **figures}


def table(days: Sequence[DayReport]) -> str:
    """Lay out the days for people."""
    rows = [_COLUMNS, *map(_cells, days)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def page(days: Sequence[DayReport], effect: Effect, path: Path) -> None:
    """Write one self-contained HTML page."""
    rows = "\n".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(day))}</tr>" for day in days
    )
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS)
    path.write_text(
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>The loop</title>
<style>body {{ font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 60em }}
td, th {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}</style>
<h1>Listening time while the service learns</h1>
<p>Last day against the first: {html.escape(str(effect))}. Users' means, Welch's interval at 95%.</p>
{_picture(days)}
<table><tr>{heads}</tr>
{rows}
</table>
</html>
""",
        "utf-8",
    )


def _cells(day: DayReport) -> tuple[str, ...]:
    return (
        str(day.day),
        day.served,
        f"{day.time_per_session.mean:.3f}",
        "" if day.time_per_session.sem is None else f"{day.time_per_session.sem:.3f}",
        f"{day.tracks_per_session.mean:.2f}",
        str(day.likes),
        _number(day.order_before),
        _number(day.order_after),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _picture(days: Sequence[DayReport]) -> str:
    """Draw time per session by day, with 95% intervals, as inline SVG; nothing without matplotlib."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure as Drawing  # noqa: PLC0415
    except ModuleNotFoundError:
        return ""
    drawing = Drawing(figsize=(7, 3.5), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot()
    axes.errorbar(
        [day.day for day in days],
        [day.time_per_session.mean for day in days],
        yerr=[1.96 * (day.time_per_session.sem or 0) for day in days],
        marker="o",
        capsize=4,
    )
    axes.set_xticks([day.day for day in days], [f"day {day.day}\n{day.served}" for day in days])
    axes.set_ylabel("tracks' worth of listening\na session")
    axes.grid(axis="y", alpha=0.3)
    drawn = io.StringIO()
    drawing.savefig(drawn, format="svg")
    text = drawn.getvalue()
    return text[text.index("<svg") :]
