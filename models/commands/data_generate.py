"""`reco data generate`: make up a data set to try things on."""

from __future__ import annotations

import argparse
import time
from datetime import date
from pathlib import Path

import orjson

from models.data.generator import END, START, generate

HELP = "Make up a data set in KION's schema: seeded, any size, with something true to learn"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--users", type=int, required=True, metavar="N", help="users, with or without events")
    parser.add_argument("--items", type=int, required=True, metavar="N", help="items, with or without events")
    parser.add_argument("--interactions", type=int, required=True, metavar="N", help="rows of interactions")
    parser.add_argument("--seed", type=int, required=True, metavar="S", help="same seed, same bytes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="default: csv")
    parser.add_argument("--start", type=_day, default=START, metavar="DATE", help=f"default: {START}")
    parser.add_argument("--end", type=_day, default=END, metavar="DATE", help=f"default: {END}")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as {START}") from error


def run(args: argparse.Namespace) -> int:
    """Generate, and print one JSON line saying what was written."""
    began = time.perf_counter()
    made = generate(
        args.out,
        n_users=args.users,
        n_items=args.items,
        n_interactions=args.interactions,
        seed=args.seed,
        start=args.start,
        end=args.end,
        file_format=args.format,
        progress=True,
    )
    summary = {
        "out": str(args.out),
        "users": made.n_users,
        "items": made.n_items,
        "interactions": made.n_interactions,
        "seed": args.seed,
        "seconds": round(time.perf_counter() - began, 2),
    }
    print(orjson.dumps(summary).decode())
    return 0
