"""Evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from models.evaluation.costs import Costs
from models.evaluation.run import Evaluation, Group

HEADLINE = ("NDCG", "Recall", "MAP", "MRR", "HR", "coverage", "novelty")


def overview_table(measured: Sequence[tuple[Evaluation, Costs]], k: int) -> Table:
    """One row a model, best NDCG first as given."""
    first = measured[0][0]
    table = Table(
        title=f"bundle {first.bundle_id}: {first.users:,} users, {first.test_rows:,} held-out items, k = {k}",
        title_justify="left",
    )
    table.add_column("model", no_wrap=True)
    table.add_column(f"NDCG@{k} (95%)", justify="right")
    for name in HEADLINE[1:]:
        table.add_column(f"{name}@{k}", justify="right")
    table.add_column("own places", justify="right")
    table.add_column("p50 / p99 µs", justify="right")
    for evaluation, costs in measured:
        result = evaluation.as_json()
        own = 1 - costs.fallback.places if costs.fallback else 1.0
        table.add_row(
            evaluation.model,
            f"{evaluation.metrics[f'NDCG@{k}']:.4f} {interval(evaluation.ci, f'NDCG@{k}')}",
            *(value(evaluation.metrics, f"{name}@{k}") for name in HEADLINE[1:]),
            f"{own:.1%}",
            f"{result['replay_us']['p50']:.0f} / {result['replay_us']['p99']:.0f}",
        )
    return table


def model_tables(evaluation: Evaluation, costs: Costs) -> list[Table]:
    """Everything about one model: metrics with intervals, cohorts and sources, costs."""
    metrics = Table(title=f"{evaluation.model}: all metrics", title_justify="left")
    metrics.add_column("metric", no_wrap=True)
    metrics.add_column("value", justify="right")
    metrics.add_column("95% interval", justify="right")
    for name in evaluation.metrics:
        metrics.add_row(name, value(evaluation.metrics, name), interval(evaluation.ci, name))
    k = evaluation.ks[0]
    return [
        metrics,
        _groups("cohort", evaluation.by_cohort, k),
        _groups("source", evaluation.by_source, k),
        _costs(costs),
    ]


def cost_rows(costs: Costs) -> list[tuple[str, str, str]]:
    """(what, NDCG without it, served minus that) for people: how much each stage of serving costs or brings."""
    name = f"NDCG@{costs.k}"

    def row(what: str, other: Mapping[str, float]) -> tuple[str, str, str]:
        return what, f"{other[name]:.5f}", f"{costs.served[name] - other[name]:+.5f}"

    rows = [("as served", f"{costs.served[name]:.5f}", "")]
    if costs.search is not None:
        found = f"overlap@{costs.k} {costs.search.overlap:.2%}"
        times = (
            f"{1e6 * costs.search.exact_seconds:.0f} µs exact, "
            f"{1e6 * costs.search.indexed_seconds:.0f} µs {costs.search.index}"
        )
        if costs.search.served == "exact":
            rows.append(row(f"if searched by {costs.search.index} ({found}; {times})", costs.search.indexed))
        else:
            rows.append(row(f"if searched exactly ({found}; {times})", costs.search.exact))
    rows.append(row("if seen items were let through", costs.with_seen))
    if costs.fallback is not None:
        share = f"{costs.fallback.users:.1%} of users, {costs.fallback.places:.1%} of places"
        rows.append(row(f"without the fallback ({share})", costs.fallback.without))
    return rows


def value(metrics: Mapping[str, float], name: str) -> str:
    """A metric as text, four decimals where it is small; a dash where there is none."""
    if name not in metrics:
        return "-"
    number = metrics[name]
    return f"{number:.4f}" if abs(number) < 10 else f"{number:,.1f}"


def interval(ci: Mapping[str, tuple[float, float]], name: str) -> str:
    """An interval as text; empty where there is none."""
    if name not in ci:
        return ""
    low, high = ci[name]
    return f"[{low:.4f}, {high:.4f}]" if abs(high) < 10 else f"[{low:,.1f}, {high:,.1f}]"


def _groups(kind: str, groups: Mapping[str, Group], k: int) -> Table:
    table = Table(title=f"by {kind}", title_justify="left")
    table.add_column(kind, no_wrap=True)
    table.add_column("users", justify="right")
    table.add_column(f"NDCG@{k} (95%)", justify="right")
    for name in HEADLINE[1:]:
        table.add_column(f"{name}@{k}", justify="right")
    for label, group in groups.items():
        ndcg = f"{value(group.metrics, f'NDCG@{k}')} {interval(group.ci, f'NDCG@{k}')}"
        rest = (value(group.metrics, f"{name}@{k}") for name in HEADLINE[1:])
        table.add_row(label, f"{group.users:,}", ndcg, *rest)
    return table


def _costs(costs: Costs) -> Table:
    table = Table("what serving costs", title="costs", title_justify="left")
    table.add_column(f"NDCG@{costs.k}", justify="right")
    table.add_column("served minus that", justify="right")
    for row in cost_rows(costs):
        table.add_row(*row)
    return table
