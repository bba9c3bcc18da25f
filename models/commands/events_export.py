"""`reco events export`: the event log as Parquet or JSON lines, every event once."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import orjson

from models.events_table import write_records
from service.errors import InputError
from service.events.reading import Broken, distinct_records

HELP = "Write the event log as one Parquet or JSONL file, every event once"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--events", type=Path, required=True, metavar="DIR", help="what RECO_EVENTS_DIR was")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .parquet or .jsonl file")


def run(args: argparse.Namespace) -> int:
    """Export, and print one JSON line. What can't be read is named on stderr and left out; then the exit code is 3."""
    began = time.perf_counter()
    damaged: list[Broken] = []
    if not args.events.is_dir():
        raise InputError(f"--events: there is no folder {args.events}")
    count = write_records(distinct_records(args.events, damaged.append), args.out)
    for one in damaged:
        print(f"reco: {one.file}: {one.bytes} bytes at {one.offset} left out: {one.reason}", file=sys.stderr)
    summary = {
        "out": str(args.out),
        "records": count,
        "corrupt": len(damaged),
        "seconds": round(time.perf_counter() - began, 3),
    }
    print(orjson.dumps(summary).decode())
    return 3 if damaged else 0
