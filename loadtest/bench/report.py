"""What a bench came to: medians with their spread, the machine, and the table."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtest.bench.ladder import RUNGS
from loadtest.bench.wrk import Round

CONNECTIONS = 32
REPEATING = 1_000
"""Users who come again where answers are kept."""


def summary(
    title: str, rounds: list[tuple[Round, Round]], base: list[float], recall: float | None
) -> dict[str, Any]:
    """Medians over the rounds with least and most; the ratio is within each round."""
    rps = [many.rps for many, _ in rounds]
    ratios = [own / raw for own, raw in zip(rps, base, strict=True)]
    spreads = {
        str(connections): {
            share: round(statistics.median(pair[n].latencies[share] for pair in rounds))
            for share in rounds[0][n].latencies
        }
        for n, connections in enumerate((CONNECTIONS, 1))
    }
    latencies = {
        f"p{share.replace('.', '')}_us_c{connections}": spread[share]
        for connections, spread in spreads.items()
        for share in ("50", "90", "99", "99.9")
    }
    return {
        "title": title, "rps": round(statistics.median(rps)), "rps_least": round(min(rps)), "rps_most": round(max(rps)),
        "ratio": round(statistics.median(ratios), 3), "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3), "recall_at_10": recall, **latencies,
        "latencies_us": spreads,
    }  # fmt: skip


def machine() -> str:
    """Processor, cores, system, Python."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def open_loop_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the second table, a heading first."""
    heads = (
        "open loop",
        "requests/s",
        "p50 / p99 µs",
        "p99 of raw ASGI's (least-most)",
        "generator late, p99 µs",
    )
    rows: list[tuple[str, ...]] = [heads]
    for load, rungs in report["open_loop"].items():
        for name, one in rungs.items():
            title, rate = f"{load}: {RUNGS[name].title}", f"{one['rate']:,}"
            if "p99_us" not in one:
                rows.append((title, rate, "-", "-", "not carried"))
                continue
            ratio = "-"
            if "p99_ratio" in one:
                ratio = f"{one['p99_ratio']:.2f} ({one['p99_ratio_least']:.2f}-{one['p99_ratio_most']:.2f})"
            late = f"{one['generator_late_p99_us']:,}" + (" (its own)" if one["generator_s_own"] else "")
            rows.append((title, rate, f"{one['p50_us']:,} / {one['p99_us']:,}", ratio, late))
    return rows


def open_loop_table(report: dict[str, Any]) -> Table:
    """Fixed rates, as a table."""
    heads, *rows = open_loop_rows(report)
    table = Table()
    for column, head in enumerate(heads):
        table.add_column(head, justify="right" if column else "left")
    for row in rows:
        table.add_row(*row)
    return table


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    console, size = Console(stderr=True, width=120), report["catalogue"]
    pins = (
        "not pinned"
        if report["pinned"] is None
        else "server on core {}, generator on core {}".format(*report["pinned"])
    )
    console.print(f"{report['machine']}; {pins}; load average before: {report['load_before']}")
    console.print(
        f"{size['items']} items x {size['dim']}, {size['users']} users, {size['seen_mean']} seen each; "
        f"{report['rounds']} interleaved rounds of {report['seconds']} s, "
        f"{CONNECTIONS} connections, medians (least-most)"
    )
    table = Table()
    for column in ("", "requests/s", "of raw ASGI", "p50 / p99 µs, c=1", "p50 / p99 µs, c=32", "recall@10"):
        table.add_column(column, justify="left" if not column else "right")
    for rung in report["rungs"].values():
        recall = rung["recall_at_10"]
        table.add_row(
            rung["title"],
            f"{rung['rps']:,} ({rung['rps_least']:,}-{rung['rps_most']:,})",
            f"{rung['ratio']:.3f} ({rung['ratio_least']:.3f}-{rung['ratio_most']:.3f})",
            f"{rung['p50_us_c1']} / {rung['p99_us_c1']}",
            f"{rung['p50_us_c32']} / {rung['p99_us_c32']}",
            "-" if recall is None else f"{recall:.3f}",
        )
    console.print(table)
    if report["open_loop"]:
        console.print(open_loop_table(report))
    if report["cache_hit_share"] is not None:
        console.print(
            f"response cache: {report['cache_hit_share']:.1%} of the answers were kept ones "
            f"({REPEATING:,} users who come again)"
        )
    for name, reason in report["skipped"].items():
        console.print(f"left out: {RUNGS[name].title}: {reason}")
