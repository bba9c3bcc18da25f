"""`reco bundle rollback`: point to the bundle published before."""

from __future__ import annotations

import argparse

import orjson

from service.commands.artifacts import add_artifacts_flag, opened

HELP = "Go back to the bundle that was published before this one"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_artifacts_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Move the pointer back and print one JSON line. The bundle left behind stays on disk."""
    store = opened(args)
    before = store.published().bundle_id
    print(orjson.dumps({"published": store.rollback(), "before": before}).decode())
    return 0
