"""`reco models`: the models of a bundle, and what their retrieval finds."""

from __future__ import annotations

import argparse
from typing import Any

import orjson

from service.bundle.files import verify_files
from service.bundle.manifest import Manifest
from service.commands.artifacts import add_artifacts_flag, chosen, opened, table

HELP = "Show the models of a bundle: kind, space, retriever, measured recall, offline metrics"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_artifacts_flag(parser)
    parser.add_argument("--bundle", metavar="ID", help="default: the published bundle")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table, or one JSON line. Raises BundleRefused for a bundle whose files don't match its manifest."""
    manifest = verify_files(chosen(opened(args), args.bundle))
    models = _described(manifest)
    if args.json:
        print(
            orjson.dumps(
                {"bundle_id": manifest.bundle_id, "default": manifest.default_model, "models": models}
            ).decode()
        )
        return 0
    print(f"bundle {manifest.bundle_id}, built from {manifest.data.name}; * marks the default model\n")
    rows = [
        (
            "*" if model["default"] else "", model["name"], model["kind"], model["dim"], model["space"],
            model["retriever"], model["recall_at_10"], model["recall_at_100"],
            ", ".join(f"{name} {value:.4f}" for name, value in model["metrics"].items()) or None,
        )
        for model in models
    ]  # fmt: skip
    header = ("", "model", "kind", "dim", "space", "retriever", "recall@10", "recall@100", "metrics")
    print(table(header, rows))
    return 0


def _described(manifest: Manifest) -> list[dict[str, Any]]:
    models = []
    for name, entry in sorted(manifest.models.items()):
        retrieval = entry.retrieval
        models.append({
            "name": name,
            "default": name == manifest.default_model,
            "kind": entry.kind,
            "dim": entry.dim,
            "space": entry.space,
            "retriever": retrieval.retriever if retrieval else None,
            "recall_at_10": retrieval.recall.at_10 if retrieval else None,
            "recall_at_100": retrieval.recall.at_100 if retrieval else None,
            "metrics": dict(entry.metrics),
        })  # fmt: skip
    return models
