"""The A/B against StickyArtist on one page: what was compared, what came out, how, and what it doesn't say."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Results = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""By seed and experiment: control_mean, treatment_mean, effect, lower, upper (% of it), p, significant, users."""


def write_page(results: Results, facts: Mapping[str, Any], path: Path, *, experiment: str, aa: str) -> None:
    """Write one self-contained HTML page. `facts`: the bench's settings, by the words they are shown by."""
    holds = all(one[experiment]["lower"] > 0 and not one[aa]["significant"] for one in results.values())
    rows = "\n".join(
        _row(seed, name, one) for seed, of_seed in results.items() for name, one in of_seed.items()
    )
    told = "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items()
    )
    verdict = (
        "On every seed the model is better than StickyArtist at 95%, and StickyArtist against itself shows nothing."
        if holds
        else "It does not hold on every seed: see the table."
    )
    path.write_text(
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>A learnt model against StickyArtist</title>
<style>body {{ font: 14px/1.45 sans-serif; margin: 1.5em auto; max-width: 54em }}
td, th {{ padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }} dl {{ display: grid; grid-template-columns: max-content 1fr;
gap: .1em 1em }} dt {{ font-weight: 600 }} dd {{ margin: 0 }} h2 {{ font-size: 1.1em; margin: 1em 0 .3em }}
svg {{ width: 100%; height: auto }}</style>
<h1>A learnt model against StickyArtist</h1>
<p><b>{html.escape(verdict)}</b> The metric is <code>mean_time_per_session</code>: each user's listening time
by session, in
tracks; means over users, Welch's interval at 95%, in percent of the control.</p>
{_picture(results)}
<table><tr><th>seed</th><th>experiment</th><th>users</th><th>control</th><th>treatment</th><th>effect</th><th>95%</th>
<th>p</th></tr>
{rows}
</table>
<h2>Method</h2>
<p>For each seed a world is drawn: tracks, artists and listeners of its own. Any tracks are played to the
listeners, and
what they heard is logged. The model is built from the likes of that log alone (a track heard for at least
half) and from the
artists and titles that any catalogue shows. Then the botify profile serves an experiment to the same listeners
on another
day: control C plays StickyArtist, T1 the model's best unheard track. Users are divided by a hash of their id.
The report is
read from the service's own log by <code>reco experiment report</code>. {html.escape(aa)} is StickyArtist
against itself.</p>
<dl>{told}</dl>
<h2>What it doesn't say</h2>
<p>The listeners are simulated: they tire of an artist and keep to one taste a session, which another track of the same
artist ignores. No data of the simulation enters training but the log: no embedding, no interest, no threshold.
A sound A/A
is significant once in twenty runs. Real listeners are another matter.</p>
</html>
""",
        "utf-8",
    )


def _row(seed: int, name: str, one: Mapping[str, Any]) -> str:
    cells = (
        str(seed),
        name,
        f"{one['users']:,}" if isinstance(one["users"], int) else str(one["users"]),
        f"{one['control_mean']:.3f}",
        f"{one['treatment_mean']:.3f}",
        f"{one['effect']:+.1f}%",
        f"[{one['lower']:+.1f}%, {one['upper']:+.1f}%]",
        f"{one['p']:.2g}",
    )
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _picture(results: Results) -> str:
    """Draw effects with their intervals as inline SVG; nothing without matplotlib."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError:
        return ""
    named = [
        (f"seed {seed}  {name}", one) for seed, of_seed in results.items() for name, one in of_seed.items()
    ]
    drawing = Figure(figsize=(7, 0.6 + 0.35 * len(named)), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot()
    for place, (_, one) in enumerate(reversed(named)):
        axes.plot([one["lower"], one["upper"]], [place, place], color="#2563a8", linewidth=2)
        axes.plot([one["effect"]], [place], "o", color="#2563a8")
    axes.axvline(0, color="#66727f", linewidth=1)
    axes.set_yticks(range(len(named)), [name for name, _ in reversed(named)])
    axes.set_xlabel("effect on mean_time_per_session, % of the control, with 95% intervals")
    axes.grid(axis="x", alpha=0.3)
    drawn = io.StringIO()
    drawing.savefig(drawn, format="svg")
    text = drawn.getvalue()
    return text[text.index("<svg") :]
