"""Experiments as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from models.analysis import experiment_tables as tables
from models.analysis.experiment import Choices, Experiment
from models.analysis.pictures import forest
from models.page import page


def render(experiments: Sequence[Experiment], choices: Choices, source: str) -> str:
    """Render the page. `source`: the log's name, for its reader."""
    return page(
        Path(__file__).with_name("experiment.html.j2"),
        experiments=experiments,
        choices=choices,
        source=source,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        confidence=f"{100 * (1 - choices.alpha):g}",
        forests=[
            Markup(forest(one.comparisons, f"effects-{n}"))  # noqa: S704 our own picture
            for n, one in enumerate(experiments)
        ],
        began=lambda one: datetime.fromtimestamp(one.began_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
        guard_names=lambda one: list(dict.fromkeys(row.metric.name for row in one.guardrails)),
        guarded=tables.guarded,
        number=tables.number,
        percent=tables.percent,
        chance=tables.chance,
    )
