"""`reco events verify`: read the whole event log and count."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson

from service.events.reading import verify

HELP = "Check every record of the event log; exit 3 names what is corrupt by file and offset"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--events", type=Path, required=True, metavar="DIR", help="what RECO_EVENTS_DIR was")


def run(args: argparse.Namespace) -> int:
    """Verify, and print one JSON line of counts. Raises InputError where there is no such folder."""
    summary = verify(args.events)
    for one in summary.corrupt:
        print(f"reco: {one.file}: {one.bytes} bytes at {one.offset}: {one.reason}", file=sys.stderr)
    print(orjson.dumps(summary.document()).decode())
    return 3 if summary.corrupt else 0
