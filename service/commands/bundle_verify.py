"""`reco bundle verify`: hold a bundle to everything that serving holds it to."""

from __future__ import annotations

import argparse
import time

import orjson

from service.commands.artifacts import add_artifacts_flag, chosen, opened, proved

HELP = "Check every file, array, index link and golden query of a bundle; exit 3 says what is wrong"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("bundle_id", nargs="?", metavar="ID", help="default: the published bundle")
    add_artifacts_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Verify, and print one JSON line. Raises BundleRefused naming the file and the reason."""
    path = chosen(opened(args), args.bundle_id)
    began = time.perf_counter()
    live = proved(path)
    manifest = live.bundle.manifest
    summary = {
        "bundle_id": live.bundle_id,
        "verified": True,
        "files": len(manifest.files),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "models": sorted(manifest.models),
        "seconds": round(time.perf_counter() - began, 3),
    }
    print(orjson.dumps(summary).decode())
    return 0
