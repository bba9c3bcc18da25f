"""Evaluation as one HTML page that needs nothing else: tables, pictures, and what the numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from models.drawing import colour_of
from models.evaluation import plots
from models.evaluation.beyond_accuracy import Training
from models.evaluation.costs import Costs
from models.evaluation.run import Evaluation, Group
from models.evaluation.tables import cost_rows, interval, value
from models.page import page
from service.bundle.manifest import Manifest

_COLUMNS = ("NDCG", "Recall", "MAP", "MRR", "HR", "Precision")
_BEYOND = (
    "coverage",
    "novelty",
    "MIUF",
    "ILD",
    "Serendipity",
    "ARP",
    "APLT",
    "Rarity",
    "Gini",
    "user_coverage",
)
_TOLD = {
    "coverage": "share of the training catalogue that anybody was shown",
    "novelty": "minus log₂ of an item's interactions per user, mean over places",
    "MIUF": "minus log₂ of an item's users per user, mean over users (the competition's novelty)",
    "ILD": "mean Hamming distance of two items' genres in one list",
    "Serendipity": "relevant items ranked higher than their popularity would put them",
    "ARP": "mean number of training users of a recommended item",
    "APLT": "share of a list outside the items that hold 80% of interactions",
    "Rarity": "share of training users who don't have a recommended item, mean over users",
    "Gini": "inequality of exposure: 0 all items equally often, 1 one item only",
    "user_coverage": "share of users who were recommended anything",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a page is made of. `measured`: models in the order shown."""

    manifest: Manifest
    test_name: str
    measured: tuple[tuple[Evaluation, Costs], ...]
    training: Training


def render(report: Report) -> str:
    """Render the page."""
    evaluations = [evaluation for evaluation, _ in report.measured]
    k = evaluations[0].ks[0]
    beyond = [name for name in _BEYOND if any(f"{name}@{k}" in e.metrics for e in evaluations)]
    return page(
        Path(__file__).with_name("report.html.j2"),
        manifest=report.manifest,
        test_name=report.test_name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        evaluations=evaluations,
        measured=report.measured,
        training=report.training,
        k=k,
        ks=evaluations[0].ks,
        columns=_COLUMNS,
        beyond=beyond,
        told=_TOLD,
        best=_best(evaluations, k),
        colour=colour_of,
        value=value,
        interval=interval,
        cost_rows=cost_rows,
        groups=_groups(evaluations),
        bars=Markup(plots.bars(evaluations, k, ("NDCG", "Recall", "MRR", "coverage"))),  # noqa: S704 our own picture
        long_tail=Markup(plots.long_tail(evaluations, report.training)),  # noqa: S704 as above
        latency=Markup(plots.latency(evaluations)),  # noqa: S704 as above
    )


def _best(evaluations: list[Evaluation], k: int) -> dict[str, float]:
    """The largest value of each metric, to stand out in the table."""
    names = [f"{name}@{k}" for name in _COLUMNS]
    return {name: max(evaluation.metrics[name] for evaluation in evaluations) for name in names}


def _groups(evaluations: list[Evaluation]) -> list[dict[str, Any]]:
    """Rows of the cohort and source tables: one a model and group."""

    def rows(title: str, pick: str) -> dict[str, Any]:
        found: list[tuple[Evaluation, str, Group]] = [
            (evaluation, name, group)
            for evaluation in evaluations
            for name, group in getattr(evaluation, pick).items()
        ]
        return {"title": title, "rows": found}

    return [rows("By cohort", "by_cohort"), rows("By source", "by_source")]
