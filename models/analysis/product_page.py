"""The product as tables for a terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from rich.table import Table

from models.analysis.product import Product, day_name
from models.drawing import INK, LINE, RC, as_svg, colour_of, panels
from models.page import page

STABLE, SHIFTED = 0.1, 0.25
_RETENTION = {"n_day": "on the day", "unbounded": "on it or later", "bracketed": "within the days"}
_STATES = (("current", 0), ("new", 2), ("returned", 3), ("dormant", 7), ("churned", 4))


def tables(product: Product) -> Iterator[Table]:
    """Yield one table after another."""
    table = _table("funnel", "step", "events", "users", "shown places", "of shown", "through all steps")
    first = product.exposure.funnel[0].places
    for step in product.exposure.funnel:
        table.add_row(
            step.name,
            f"{step.events:,}",
            f"{step.users:,}",
            f"{step.places:,}",
            share(step.places, first),
            f"{step.through:,}",
        )
    yield table
    for key, rates in product.exposure.rates.items():
        table = _table(f"clicks by {key}", key, "shown", "clicked", "CTR")
        for rate in rates:
            table.add_row(rate.name, f"{rate.shown:,}", f"{rate.clicked:,}", f"{rate.ctr:.2%}")
        yield table
    table = _table(
        f"users by state, periods of {product.period_days} days, churned after {product.churned_after}",
        "from", "active", "new", "current", "returned", "dormant", "churned", "churn",
    )  # fmt: skip
    for one in product.periods:
        table.add_row(
            day_name(one.first_day),
            *(f"{n:,}" for n in (one.active, one.new, one.current, one.returned, one.dormant, one.churned)),
            "-" if one.churn_rate is None else f"{one.churn_rate:.1%}",
        )
    yield table
    table = _table("retention", "since the first day", "kind", "users", "rate")
    for kind, rows in product.retention.items():
        for kept in rows:
            table.add_row(kept.name, _RETENTION[kind], f"{kept.users:,}", percent(kept.rate))
    yield table
    table = _table("all else", "", "value")
    for name, value in facts(product):
        table.add_row(name, value)
    yield table


def facts(product: Product) -> Iterator[tuple[str, str]]:
    """Yield (what, value) of what is one number."""
    yield "DAU / WAU / MAU", f"{product.daily[-1]:,} / {product.weekly[-1]:,} / {product.monthly[-1]:,}"
    yield "stickiness (DAU / MAU)", f"{product.stickiness:.1%}"
    if product.sessions is not None:
        one = product.sessions
        yield "sessions", f"{one.count:,}, {one.records_mean:.1f} records each"
        yield (
            "session length",
            f"mean {one.seconds_mean:,.0f} s, median {one.seconds_median:,.0f} s, p90 {one.seconds_p90:,.0f} s",
        )
    covered = product.coverage
    known = (
        ""
        if covered.catalogue is None
        else f" of {covered.catalogue:,} ({covered.shown / covered.catalogue:.1%})"
    )
    yield "items shown", f"{covered.shown:,}{known}"
    yield "items acted on", f"{covered.acted_on:,}"
    if covered.gini is not None:
        yield "Gini of exposure", f"{covered.gini:.3f}"
    for name, psi in product.drift.items():
        yield f"drift of {name} (PSI)", f"{psi:.3f}, {judged(psi)}"
    if product.money is not None:
        paid = product.money
        yield "GMV", f"{paid.gmv:,.2f} in {paid.orders:,} orders of {paid.buyers:,} buyers"
        yield (
            "revenue a user / buyer / order",
            f"{paid.per_user:,.2f} / {paid.per_buyer:,.2f} / {paid.per_order:,.2f}",
        )


def judged(psi: float) -> str:
    """The index by its customary marks."""
    return "stable" if psi < STABLE else "shifted" if psi > SHIFTED else "moving"


def render(product: Product, source: str) -> str:
    """Render the page. `source`: the log's name, for its reader."""
    return page(
        Path(__file__).with_name("product.html.j2"),
        p=product,
        source=source,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=list(facts(product)),
        day_name=day_name,
        share=share,
        percent=percent,
        kinds=_RETENTION,
        audience=Markup(_audience(product)),  # noqa: S704 our own picture
        states=Markup(_states(product)),  # noqa: S704 as above
        positions=Markup(_positions(product)) if product.exposure.rates["position"] else "",  # noqa: S704 as above
    )


def share(part: int, whole: int) -> str:
    """A percentage; a dash of nothing."""
    return f"{part / whole:.2%}" if whole else "-"


def percent(rate: float | None) -> str:
    """A rate; a dash where it can't be told yet."""
    return "-" if rate is None else f"{rate:.1%}"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _audience(product: Product) -> str:
    figure, (axes,) = panels(1, 8.6, 2.5)
    days = np.arange(len(product.daily))
    with mpl.rc_context(RC):
        for number, (name, counts) in enumerate(
            (("day", product.daily), ("7 days", product.weekly), ("30 days", product.monthly))
        ):
            axes.plot(
                days,
                counts,
                color=colour_of(number),
                linewidth=1.8,
                label=name,
                marker="o" if len(days) == 1 else None,
            )
        axes.set_ylim(bottom=0)
        axes.set_xticks(*_day_ticks(product.first_day, len(days)))
        axes.grid(color=LINE, linewidth=0.6, axis="y")
        axes.set_ylabel("active users")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
    return as_svg(figure, "audience")


def _states(product: Product) -> str:
    figure, (axes,) = panels(1, 8.6, 2.6)
    places = np.arange(len(product.periods))
    with mpl.rc_context(RC):
        base = np.zeros(len(places))
        for name, colour in _STATES:
            counts = np.array([getattr(one, name) for one in product.periods], np.float64)
            axes.bar(places, counts, bottom=base, width=0.75, color=colour_of(colour), label=name, alpha=0.9)
            base += counts
        step = max(1, len(places) // 8)
        axes.set_xticks(places[::step], [day_name(one.first_day)[5:] for one in product.periods[::step]])
        axes.set_ylabel("users known")
        axes.tick_params(axis="x", length=0, labelcolor=INK)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5, reverse=True)
    return as_svg(figure, "states")


def _positions(product: Product) -> str:
    rates = product.exposure.rates["position"]
    figure, (axes,) = panels(1, 8.6, 2.0)
    with mpl.rc_context(RC):
        axes.bar(
            range(len(rates)), [100 * rate.ctr for rate in rates], width=0.7, color=colour_of(0), alpha=0.9
        )
        step = max(1, len(rates) // 20)
        axes.set_xticks(range(0, len(rates), step), [rate.name for rate in rates[::step]])
        axes.set_xlabel("place in the slate")
        axes.set_ylabel("CTR, %")
    return as_svg(figure, "positions")


def _day_ticks(first_day: int, length: int) -> tuple[list[int], list[str]]:
    ticks = list(range(0, length, max(1, -(-length // 8))))
    return ticks, [day_name(first_day + day)[5:] for day in ticks]
