"""`reco recommend`: the serving line's answers for a file of users, as a table."""

from __future__ import annotations

import argparse
import csv
import io
import time
from pathlib import Path

import orjson

from models.evaluation.files import at_least_one, read_items, read_users, write_whole
from models.evaluation.opening import model_of, open_published
from models.evaluation.replay import Replay, replay
from service.domain import ItemFilter
from service.recommender.plan import plan_for

HELP = "Recommend to a file of users through the serving line: user_id,item_id,rank"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--artifacts", type=Path, required=True, metavar="DIR", help="folder with a published bundle"
    )
    parser.add_argument(
        "--model", default="default", metavar="M", help="a model of the bundle; default: its default"
    )
    parser.add_argument(
        "--users",
        type=Path,
        required=True,
        metavar="FILE",
        help="one id a line, or a table with a user_id column",
    )
    parser.add_argument("--k", type=at_least_one, default=10, metavar="N", help="items a user; default: 10")
    parser.add_argument(
        "--allow",
        type=Path,
        metavar="FILE",
        help="recommend only these items: one id a line, or a table with an item_id column",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="CSV", help="gzipped where the name ends in .gz"
    )


def run(args: argparse.Namespace) -> int:
    """Write the table, and print one JSON line saying what it holds."""
    began = time.perf_counter()
    live = open_published(args.artifacts)
    model = model_of(live, args.model)
    users = read_users(args.users, live.bundle.manifest.user_id_kind)
    among = None
    if args.allow is not None:
        among = ItemFilter(allow=frozenset(read_items(args.allow, live.bundle.manifest.item_id_kind)))
    answers = replay(live, plan_for(model.name, live), users, k=args.k, among=among, progress=True)
    write_whole(args.out, _table(answers))
    summary = {
        "out": str(args.out),
        "bundle": live.bundle_id,
        "model": model.name,
        "users": len(users),
        "rows": sum(map(len, answers.item_ids)),
        "k": args.k,
        "place_share_by_source": {
            source: round(share, 5) for source, share in answers.place_shares().items()
        },
        "seconds": round(time.perf_counter() - began, 2),
    }
    print(orjson.dumps(summary).decode())
    return 0


def _table(answers: Replay) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("user_id", "item_id", "rank"))
    for user, items in zip(answers.user_ids, answers.item_ids, strict=True):
        writer.writerows((user, item, rank) for rank, item in enumerate(items, start=1))
    return text.getvalue().encode()
