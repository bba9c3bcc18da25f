"""`reco events tail`: the event log as JSON lines, as it is and as it grows."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from service.events.reading import Broken, Follower, lines, read_records

HELP = "Print the event log as JSON lines; --follow goes on as it grows"
_POLL_S = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--events", type=Path, required=True, metavar="DIR", help="what RECO_EVENTS_DIR was")
    parser.add_argument(
        "--last", type=_count, metavar="N", help="begin with the last N; default: with the first"
    )
    parser.add_argument("--follow", action="store_true", help="wait for more until interrupted")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Print, by the time of logging; duplicates too. Raises InputError where there is no such folder."""
    if not args.follow:
        _print(_last(read_records(args.events, _complain), args.last))
        return 0
    follower = Follower(args.events)
    _print(_last(follower.news(), args.last))
    while True:
        time.sleep(_POLL_S)
        _print(follower.news())


def _last(records: Iterable[Mapping[str, Any]], most: int | None) -> Iterable[Mapping[str, Any]]:
    return records if most is None else deque(records, most)


def _print(records: Iterable[Mapping[str, Any]]) -> None:
    out = sys.stdout.buffer
    for line in lines(records):
        out.write(line)
    out.flush()


def _complain(one: Broken) -> None:
    print(f"reco: {one.file}: {one.bytes} bytes at {one.offset} are no record: {one.reason}", file=sys.stderr)
