"""What the commands over an artifacts folder share: the flag, the full check, the table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import InputError
from service.recommender.live import LiveBundle, go_live
from service.settings import load_settings


def add_artifacts_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--artifacts FOLDER`, by default the folder that `reco serve` would serve."""
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="FOLDER",
        help="the bundles' folder (default: as RECO_ARTIFACTS says)",
    )


def opened(args: argparse.Namespace) -> ArtifactStore:
    """Open the folder. Raises InputError where there is none."""
    root: Path = args.artifacts or load_settings().artifacts
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (build one with 'reco build --out {root} …')")
    return ArtifactStore(root)


def chosen(store: ArtifactStore, bundle_id: str | None) -> Path:
    """Folder of a bundle by id; of the published one where no id is given. Raises InputError."""
    return store.current() if bundle_id is None else store.path_of(bundle_id)


def published_id(store: ArtifactStore) -> str | None:
    """Id that the pointer names; None where there is none, or it is damaged."""
    try:
        return store.published().bundle_id
    except InputError:
        return None


def proved(path: Path) -> LiveBundle:
    """Do all that serving does before the first request: verify, read, answer the golden queries.

    Raises BundleRefused naming the file and the reason.
    """
    return go_live(load_bundle(path))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines of a plain table: columns padded to their widest cell, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(header))]
    lines = []
    for line in [list(header), *cells]:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
