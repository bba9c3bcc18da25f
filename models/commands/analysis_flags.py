"""Flags that the commands over a log share."""

from __future__ import annotations

import argparse
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

from models.analysis.log import Log


def add_events(parser: argparse.ArgumentParser) -> None:
    """Add --events."""
    parser.add_argument(
        "--events",
        type=Path,
        required=True,
        metavar="DIR|FILE",
        help="what RECO_EVENTS_DIR was, a .parquet or .jsonl export of it, or botify's data.json",
    )


def moment(text: str) -> datetime:
    """Parse ISO 8601; without a zone it is UTC."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def share(text: str) -> float:
    """Parse a probability, neither 0 nor 1."""
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {text}")
    return value


def positive(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not (value > 0.0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def tell_damage(log: Log) -> None:
    """Name on stderr what could not be read."""
    for one in log.damaged:
        print(f"reco: {one.file}: {one.bytes} bytes at {one.offset} left out: {one.reason}", file=sys.stderr)
