"""The bench's report as one HTML file: the table, and how latencies are spread. Needs matplotlib (extra `build`)."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

from loadtest.bench.errors import BenchError
from loadtest.bench.report import open_loop_rows

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)


def write_html(report: dict[str, Any], path: Path) -> None:
    """Write the report. Raises BenchError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, only where the page is asked for
    except ImportError:
        raise BenchError("--html needs matplotlib: pip install 'reco-service[build]'") from None
    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, connections in zip(figure.subplots(1, 2), (1, report["connections"]), strict=True):
        for rung in report["rungs"].values():
            spread = rung["latencies_us"][str(connections)]
            # Distance to 100% on a log scale: the tail gets as much room as the middle.
            axes.plot(
                [100 / (100 - float(share)) for share in spread], list(spread.values()), label=rung["title"]
            )
        axes.set(xscale="log", yscale="log", ylabel="µs", xlabel="share of answers that came sooner")
        axes.set_xticks([2, 10, 100, 1000], ["50%", "90%", "99%", "99.9%"])
        axes.set_title(f"{connections} connection{'s' if connections > 1 else ''}, closed loop")
        axes.grid(visible=True, which="major", alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    path.write_text(_page(report, base64.b64encode(picture.getvalue()).decode()), "utf-8")


def _page(report: dict[str, Any], picture: str) -> str:
    size = report["catalogue"]
    about = (
        f"{report['machine']}; {size['items']:,} items x {size['dim']}, {size['users']:,} users, "
        f"{size['seen_mean']} seen each; {report['rounds']} interleaved rounds of {report['seconds']} s; "
        f"load average before: {report['load_before']}"
    )
    header = (
        "",
        "requests/s",
        "of raw ASGI",
        "p50 / p99 µs, c=1",
        f"p50 / p99 µs, c={report['connections']}",
        "recall@10",
    )
    rows = [
        (
            rung["title"], f"{rung['rps']:,} ({rung['rps_least']:,}-{rung['rps_most']:,})",
            f"{rung['ratio']:.3f} ({rung['ratio_least']:.3f}-{rung['ratio_most']:.3f})",
            f"{rung['p50_us_c1']} / {rung['p99_us_c1']}", f"{rung['p50_us_c32']} / {rung['p99_us_c32']}",
            "-" if rung["recall_at_10"] is None else f"{rung['recall_at_10']:.3f}",
        )
        for rung in report["rungs"].values()
    ]  # fmt: skip
    second = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in (open_loop_rows(report) if report["open_loop"] else ())
    )
    table = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    left_out = "".join(
        f"<p>Left out: {html.escape(name)} ({html.escape(reason)})</p>"
        for name, reason in report["skipped"].items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>make bench</title><style>{_STYLE}</style>'
        f"<h1>make bench</h1><p>{html.escape(about)}</p><table><tr>{heads}</tr>{table}</table>{left_out}"
        f"<table>{second}</table>"
        f'<p><img alt="Latency by share of answers" src="data:image/svg+xml;base64,{picture}"></p></html>\n'
    )
