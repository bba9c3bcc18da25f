"""A page that shows latency against load: a table, and a picture without any library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from loadtest.openloop.search import Found, Step
from loadtest.scenario_file import ScenarioFile

_WIDE, _HIGH, _EDGE = 760, 380, 56
_LINES = (("p50", 0.5, "#4c78a8"), ("p99", 0.99, "#f58518"), ("p99.9", 0.999, "#b279a2"))


def page(file: ScenarioFile, url: str, found: Found) -> str:
    """HTML of one search."""
    steps = sorted(found.steps, key=lambda step: step.outcome.rate)
    rows = "".join(_row(step) for step in steps)
    slo = file.slo
    return f"""<!doctype html><meta charset="utf-8"><title>{html.escape(file.name)}</title>
<style>body{{font:14px sans-serif;margin:2em}}td,th{{padding:2px 10px;text-align:right}}.bad{{color:#b00}}</style>
<h1>{html.escape(file.name)}: {found.highest:,.0f} requests/s</h1>
<p>{html.escape(url)}; {file.arrivals.kind} arrivals, {file.arrivals.connections} connections
({"kept" if file.arrivals.reuse else "one a request"}), steps of {file.search.seconds:g} s; latency counts from the
instant a request was due. Objective: p99 of at most {slo.p99_ms:g} ms, at most {slo.fallback_share:.1%} fallback,
no errors.</p>
{picture(steps, slo.p99_ms)}
<table><tr><th>requests/s<th>goodput<th>p50 ms<th>p99 ms<th>p99.9 ms<th>fallback<th>errors<th>generator late p99 ms<th>
</tr>{rows}</table>
"""


def _row(step: Step) -> str:
    outcome = step.outcome
    cells = [f"{outcome.rate:,.0f}", f"{outcome.goodput:,.0f}"]
    cells += [f"{outcome.latency.quantile(share) * 1e3:.2f}" for _, share, _ in _LINES]
    cells += [f"{outcome.fallback_share:.2%}", f"{outcome.errors}", f"{outcome.lag.quantile(0.99) * 1e3:.2f}"]
    said = "; ".join(step.breaches) + (" (the generator was late)" if step.generator_late else "")
    kind = ' class="bad"' if step.breaches else ""
    return f"<tr{kind}>{''.join(f'<td>{cell}' for cell in cells)}<td>{html.escape(said)}</tr>"


def picture(steps: Sequence[Step], p99_ms: float) -> str:
    """SVG: both axes logarithmic; the objective is the dashed line."""
    if not steps:
        return ""
    rates = [step.outcome.rate for step in steps]
    told = [step.outcome.latency.quantile(share) * 1e3 for step in steps for _, share, _ in _LINES]
    low, high = math.log10(max(0.01, min([*told, p99_ms]))), math.log10(max([*told, p99_ms, 0.02]) * 1.2)
    left, right = math.log10(min(rates) * 0.9), math.log10(max(rates) * 1.1)

    def x(rate: float) -> float:
        return _EDGE + (math.log10(rate) - left) / (right - left) * (_WIDE - 2 * _EDGE)

    def y(ms: float) -> float:
        return _HIGH - _EDGE - (math.log10(max(ms, 0.01)) - low) / (high - low) * (_HIGH - 2 * _EDGE)

    foot = _HIGH - 36
    powers = [10.0**power for power in range(math.floor(low), math.ceil(high) + 1) if low <= power <= high]
    parts = [f'<svg viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" font-size="11">']
    parts += [
        f'<line x1="{_EDGE}" x2="{_WIDE - _EDGE}" y1="{y(ms):.1f}" y2="{y(ms):.1f}" stroke="#ddd"/>'
        f'<text x="8" y="{y(ms) + 4:.1f}">{ms:g} ms</text>'
        for ms in powers
    ]
    parts += [
        f'<text x="{x(rate):.1f}" y="{foot}" transform="rotate(60 {x(rate):.1f},{foot})">{rate:,.0f}</text>'
        for rate in sorted(set(rates))
    ]
    parts.append(
        f'<line x1="{_EDGE}" x2="{_WIDE - _EDGE}" y1="{y(p99_ms):.1f}" y2="{y(p99_ms):.1f}" stroke="#b00"'
        ' stroke-dasharray="5 4"/>'
    )
    for place, (name, share, colour) in enumerate(_LINES):
        points = [(x(s.outcome.rate), y(s.outcome.latency.quantile(share) * 1e3)) for s in steps]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_EDGE + 8}" y="{_EDGE / 2 + 14 * place:.0f}" fill="{colour}">{name}</text>')
    return "".join(parts) + "</svg>"
