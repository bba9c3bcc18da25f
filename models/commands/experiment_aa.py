"""`reco experiment aa`: how often the analysis finds a difference where there is none."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
from markupsafe import Markup
from rich.table import Table

from models.analysis import aa as divisions
from models.analysis.aa import FalsePositives, false_positives
from models.analysis.log import opened
from models.analysis.pictures import p_values
from models.analysis.users import user_sums
from models.commands.analysis_flags import add_events, share, tell_damage
from models.evaluation.files import at_least_one, write_whole
from models.page import page
from models.progress import console_of_people

HELP = "Divide the log's users at random again and again: how often is a difference found that isn't there"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_events(parser)
    parser.add_argument(
        "--repeats", type=at_least_one, default=1000, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--alpha", type=share, default=0.05, metavar="P", help="default: %(default)s")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the p-values, self-contained"
    )


def run(args: argparse.Namespace) -> int:
    """Divide; a table to stderr, one JSON object to stdout."""
    with opened(args.events) as log:
        found = false_positives(user_sums(log.events), repeats=args.repeats, seed=args.seed, alpha=args.alpha)
    console = console_of_people()
    console.print(_table(found, args.repeats))
    if args.html:
        write_whole(args.html, _page(found, args).encode())
        console.print(f"report: {args.html}", markup=False)
    tell_damage(log)
    summary = {
        "alpha": args.alpha,
        "repeats": args.repeats,
        "seed": args.seed,
        "metrics": [one.as_json() for one in found],
        "calibrated": all(one.calibrated for one in found),
    }
    print(orjson.dumps(summary).decode())
    return 0


def _table(found: Sequence[FalsePositives], repeats: int) -> Table:
    table = Table(
        title=f"A/A: {repeats:,} random divisions, {found[0].alpha:.1%} may differ", title_justify="left"
    )
    table.add_column("metric", no_wrap=True)
    for name in ("users", "false positives", "rate", "95% interval"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for one in found:
        table.add_row(
            one.metric.name,
            f"{one.users:,}",
            f"{one.positives:,}",
            f"{one.rate:.2%}",
            f"[{one.lower:.2%}, {one.upper:.2%}]",
            one.verdict if one.calibrated else f"[red]{one.verdict}[/red]",
        )
    return table


def _page(found: Sequence[FalsePositives], args: argparse.Namespace) -> str:
    return page(
        Path(divisions.__file__).with_name("aa.html.j2"),
        found=found,
        repeats=args.repeats,
        source=args.events.name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        pictures=[Markup(p_values(one.p_values, f"p-{n}")) for n, one in enumerate(found)],  # noqa: S704 our own
    )
