"""`reco botify data`: from the logs that the botify profile wrote to a folder that `reco build` reads."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from models.data.botify import json_lines, read_listens, read_tracks
from models.progress import CONSOLE
from service.errors import InputError

HELP = "Make interactions of the listening logs of one or several botify services"

LIKED_FROM = 0.5
_LOG = re.compile(r"data\.json(\.\d+)?(\.gz)?")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--log", type=Path, nargs="+", required=True, metavar="PATH",
        help="log files, or folders of them with what was rotated (data.json, data.json.1, …), one a service",
    )  # fmt: skip
    parser.add_argument("--tracks", type=Path, metavar="FILE", help="tracks.json, for titles and artists")
    parser.add_argument(
        "--liked-from", type=float, default=LIKED_FROM, metavar="SHARE",
        help=f"least share of a track that was heard for it to count as liked (default: {LIKED_FROM})",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made if it is not there")


def run(args: argparse.Namespace) -> int:
    """Write interactions.parquet, and items.parquet where tracks are given; one JSON line on stdout.

    Raises InputError, and DataError naming a log's file, row and key.
    """
    if not 0 <= args.liked_from <= 1:
        raise InputError(f"--liked-from {args.liked_from}: a share from 0 to 1")
    files = log_files(args.log)
    with CONSOLE.status("reading the logs"):
        listens = pl.concat([read_listens(file) for file in files]).sort("timestamp", maintain_order=True)
    liked = listens.filter(pl.col("time") >= args.liked_from).select(
        pl.col("user").alias("user_id"),
        pl.col("track").alias("item_id"),
        pl.col("time").alias("weight"),
        pl.from_epoch("timestamp", time_unit="ms").cast(pl.Datetime("ms")),
    )
    if liked.is_empty():
        raise InputError(f"none of {listens.height} listens was for {args.liked_from} of its track or more")
    args.out.mkdir(parents=True, exist_ok=True)
    liked.write_parquet(args.out / "interactions.parquet")
    summary: dict[str, Any] = {
        "files": len(files),
        "listens": listens.height,
        "liked": liked.height,
        "users": liked["user_id"].n_unique(),
        "tracks": liked["item_id"].n_unique(),
        "next": f"reco build --data {args.out} --out artifacts",
    }
    if args.tracks is not None:
        read_tracks(args.tracks)  # refuses what is no catalogue, by row
        rows = [
            {"item_id": line.pop("track")}
            | {name: value for name, value in line.items() if name != "recommendations"}
            for _, line in json_lines(args.tracks)
        ]
        pl.DataFrame(rows, infer_schema_length=None, strict=False).write_parquet(args.out / "items.parquet")
    print(orjson.dumps(summary).decode())
    return 0


def log_files(paths: Iterable[Path]) -> list[Path]:
    """List the log's files of each path, the oldest of a folder first. Raises InputError where there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
            continue
        names = [file for file in path.glob("data.json*") if _LOG.fullmatch(file.name)]
        if not names:
            raise InputError(f"{path}: no log there; looked for data.json and data.json.1, data.json.2, …")
        found += sorted(names, key=_age, reverse=True)
    if len(set(map(Path.resolve, found))) < len(found):
        raise InputError("--log: a file is given twice")
    return found


def _age(path: Path) -> int:
    numbered = re.search(r"\.(\d+)", path.name)
    return int(numbered[1]) if numbered else 0
