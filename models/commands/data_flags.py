"""Flags that say which data and how to read it, alike in every command that reads data."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.data.read import DIALECTS
from service.errors import InputError


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add --data, --reader and --column."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR_OR_FILE",
        help="interactions, or a folder with interactions.* and optionally users.* and items.*",
    )
    parser.add_argument(
        "--reader", metavar="R", help=f"auto, {', '.join(DIALECTS)}; default: auto, by file names and columns"
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="what a column is called in the file, e.g. user_id=uid; may be repeated",
    )


def columns_of(args: argparse.Namespace) -> dict[str, str]:
    """Read --column into our name -> the file's. Raises InputError for one without both sides."""
    columns = {}
    for pair in args.column:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"--column {pair}: must be OURS=THEIRS, e.g. user_id=uid")
        columns[ours] = theirs
    return columns
