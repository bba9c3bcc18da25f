"""`reco bundle list`: what there is to serve, and which of it is published."""

from __future__ import annotations

import argparse
from typing import Any

import orjson

from service.bundle.manifest import MANIFEST, parse_manifest
from service.bundle.store import ArtifactStore
from service.commands.artifacts import add_artifacts_flag, opened, published_id, table
from service.errors import BundleRefused

HELP = "List the bundles of an artifacts folder, oldest first; * marks the published one"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_artifacts_flag(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table, or one JSON line. A bundle whose manifest is damaged is listed with the reason."""
    store = opened(args)
    published = published_id(store)
    bundles = [_described(store, bundle_id) for bundle_id in store.list()]
    if args.json:
        print(orjson.dumps({"published": published, "bundles": bundles}).decode())
        return 0
    if not bundles:
        print(f"no bundles in {store.root}")
        return 0
    rows = [
        (
            "*" if bundle["bundle_id"] == published else "",
            bundle["bundle_id"],
            *(
                (bundle["created_at"], bundle["data"], bundle["n_users"], bundle["n_items"], bundle["megabytes"],
                 ", ".join(bundle["models"]))
                if "damaged" not in bundle
                else (f"damaged: {bundle['damaged']}", None, None, None, None, None)
            ),
        )
        for bundle in bundles
    ]  # fmt: skip
    print(table(("", "bundle", "created", "data", "users", "items", "MB", "models"), rows))
    return 0


def _described(store: ArtifactStore, bundle_id: str) -> dict[str, Any]:
    try:
        manifest = parse_manifest((store.bundles_dir / bundle_id / MANIFEST).read_bytes())
    except BundleRefused as error:
        return {"bundle_id": bundle_id, "damaged": str(error)}
    return {
        "bundle_id": bundle_id,
        "created_at": manifest.created_at,
        "data": manifest.data.name,
        "n_users": manifest.data.n_users,
        "n_items": manifest.data.n_items,
        "megabytes": round(sum(entry.bytes for entry in manifest.files.values()) / 1e6, 2),
        "models": sorted(manifest.models),
        "default": manifest.default_model,
    }
