"""`reco events report`: how the product does, by its log."""

from __future__ import annotations

import argparse
from datetime import UTC
from pathlib import Path

import orjson
import polars as pl

from models.analysis.log import collected, opened
from models.analysis.product import measure
from models.analysis.product_page import render, tables
from models.commands.analysis_flags import add_events, moment, positive, tell_damage
from models.data.tables import column_names, scan_table
from models.evaluation.files import at_least_one, write_whole
from models.progress import console_of_people
from service.errors import DataError

HELP = "Report the product's metrics: funnel, audience, retention, growth, coverage, drift"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_events(parser)
    parser.add_argument(
        "--items", type=Path, metavar="FILE", help="the catalogue: a table with item_id and maybe category"
    )
    parser.add_argument(
        "--period",
        type=at_least_one,
        default=7,
        metavar="DAYS",
        help="of growth accounting; default: %(default)s",
    )
    parser.add_argument(
        "--churned-after",
        type=at_least_one,
        default=4,
        metavar="PERIODS",
        help="without a record in so many a user has churned; default: %(default)s",
    )
    parser.add_argument(
        "--session-gap",
        type=positive,
        default=30.0,
        metavar="MINUTES",
        help="silence that ends a session; default: %(default)s",
    )
    parser.add_argument(
        "--split",
        type=moment,
        metavar="TIME",
        help="drift is from before to after it (ISO 8601, UTC); default: the middle of the log",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a report with plots, one self-contained page"
    )


def run(args: argparse.Namespace) -> int:
    """Report; tables to stderr, one JSON object to stdout."""
    with opened(args.events) as log:
        product = measure(
            log.events,
            period_days=args.period,
            churned_after=args.churned_after,
            gap_ms=int(args.session_gap * 60_000),
            split_ms=None if args.split is None else int(args.split.astimezone(UTC).timestamp() * 1000),
            items=None if args.items is None else _items(args.items),
        )
    console = console_of_people()
    for table in tables(product):
        console.print(table)
    if args.html:
        write_whole(args.html, render(product, args.events.name).encode())
        console.print(f"report: {args.html}", markup=False)
    tell_damage(log)
    print(orjson.dumps(product.as_json()).decode())
    return 0


def _items(path: Path) -> pl.DataFrame:
    table = scan_table(path)
    found = column_names(table, path)
    if "item_id" not in found:
        raise DataError(path, f"no column 'item_id'; the columns are {', '.join(found)}")
    wanted = [name for name in ("item_id", "category") if name in found]
    return collected(table.select(pl.col(wanted).cast(pl.String))).unique(
        "item_id", keep="first", maintain_order=True
    )
