"""`reco compare A B`: two bundles, or two models, on the same held-out users."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.table import Table

import models.evaluation
from models.evaluation.comparison import HEAD, Comparison, Difference, compare
from models.evaluation.files import at_least_one, read_pairs, write_whole
from models.evaluation.opening import model_of, open_published
from models.page import page
from models.progress import console_of_people
from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.recommender.live import LiveBundle, go_live

HELP = "Compare two bundles or models on held-out users: paired intervals, cohorts, lists side by side"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    for name in ("first", "second"):
        parser.add_argument(
            name,
            type=Path,
            metavar=name[0].upper(),
            help="artifacts folder (what is published) or a bundle's own",
        )
    parser.add_argument("--test", type=Path, required=True, metavar="FILE", help="held-out user_id,item_id")
    parser.add_argument(
        "--models", type=_pair, default=("default", "default"), metavar="M[,M]",
        help="which model of each; one name is for both; default: default",
    )  # fmt: skip
    parser.add_argument("--k", type=at_least_one, default=10, metavar="N", help="list length; default: 10")
    parser.add_argument(
        "--examples", type=int, default=6, metavar="N", help="users side by side on the page; default: 6"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of resamples and examples; default: 0"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")


def run(args: argparse.Namespace) -> int:
    """Compare; tables to stderr, one JSON object to stdout."""
    began = time.perf_counter()
    first = _opened(args.first)
    lives = first, first if args.second == args.first else _opened(args.second)
    for live, name in zip(lives, args.models, strict=True):
        model_of(live, name)
    manifest = lives[0].bundle.manifest
    users, items = read_pairs(args.test, manifest.user_id_kind, manifest.item_id_kind)
    found = compare(
        lives, args.models, users, items, k=args.k, examples=args.examples, seed=args.seed, progress=True
    )
    console = console_of_people()
    for table in (metrics_table(found), _cohorts(found)):
        console.print(table)
    if args.html:
        write_whole(args.html, _page(found, args.test.name).encode())
        console.print(f"report: {args.html}")
    print(orjson.dumps({**found.as_json(), "seconds": round(time.perf_counter() - began, 2)}).decode())
    return 0


def _opened(path: Path) -> LiveBundle:
    return go_live(load_bundle(path)) if (path / MANIFEST).is_file() else open_published(path)


def _pair(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) not in {1, 2} or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not one model's name or two")
    return names[0], names[-1]


def metrics_table(found: Comparison) -> Table:
    """Each metric of A and of B, their difference with its interval, and the lift."""
    table = Table(
        title=f"A: {found.first.name}\nB: {found.second.name}\n{found.users:,} users, {found.test_rows:,} held-out; "
        f"overlap@{found.k} {found.overlap[0]:.3f} [{found.overlap[1]:.3f}, {found.overlap[2]:.3f}], "
        f"coverage {found.coverage[0]:.3f} and {found.coverage[1]:.3f}",
        title_justify="left",
    )
    for name in ("metric", "A", "B", "B - A", "95%", "lift"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, one in found.metrics.items():
        table.add_row(name, *_cells(one))
    return table


def _cohorts(found: Comparison) -> Table:
    table = Table(title=f"{HEAD}@{found.k} by cohort", title_justify="left")
    for name in ("by", "group", "users", "B better", "B worse", "A", "B", "B - A", "95%", "lift"):
        table.add_column(name, justify="left" if name in {"by", "group"} else "right")
    for group in found.cohorts:
        told = ("", "", "", "too few", "") if group.difference is None else _cells(group.difference)
        shares = (f"{count / group.users:.0%}" for count in (group.won, group.lost))
        table.add_row(group.kind, group.name, f"{group.users:,}", *shares, *told)
    return table


def _cells(one: Difference) -> tuple[str, str, str, str, str]:
    star = "*" if one.significant else ""
    interval = f"{one.lower:+.4f}, {one.upper:+.4f}"
    lift = "" if one.lift is None else f"{one.lift:+.1%}"
    return f"{one.first:.4f}", f"{one.second:.4f}", f"{one.effect:+.4f}{star}", interval, lift


def _page(found: Comparison, test_name: str) -> str:
    return page(
        Path(models.evaluation.__file__).with_name("comparison.html.j2"),
        found=found,
        head=HEAD,
        test_name=test_name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
