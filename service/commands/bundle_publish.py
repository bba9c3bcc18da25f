"""`reco bundle publish`: verify a bundle and point to it."""

from __future__ import annotations

import argparse

import orjson

from service.commands.artifacts import add_artifacts_flag, opened, proved, published_id

HELP = "Verify a bundle and make it the one that serves"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("bundle_id", metavar="ID", help="as 'reco bundle list' shows it")
    add_artifacts_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Move the pointer only once the bundle has answered its golden queries; print one JSON line."""
    store = opened(args)
    before = published_id(store)
    proved(store.path_of(args.bundle_id))
    store.publish(args.bundle_id)
    print(orjson.dumps({"published": args.bundle_id, "before": before}).decode())
    return 0
