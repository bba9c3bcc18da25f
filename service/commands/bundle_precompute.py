"""`reco bundle precompute`: make a bundle anew with every user's candidates computed beforehand."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from threadpoolctl import threadpool_limits

from service.bundle.reader import Bundle
from service.bundle.writer import BundleWriter
from service.commands.artifacts import add_artifacts_flag, chosen, opened, proved, table
from service.errors import InputError
from service.recommender.filters import Eligible
from service.recommender.live import LiveModel
from service.recommender.precomputed import KINDS, MAX_WIDTH, PrecomputedLists, precompute
from service.recommender.user_state import UserState

HELP = "Compute every user's candidates beforehand: a copy of a bundle with lists where they are faster"
FASTER = 2.0
"""Lists are kept where a search costs at least this many times as much."""
_PROBED = 300
_SHOWN_EVERY = 20_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_artifacts_flag(parser)
    parser.add_argument("--bundle", metavar="ID", help="default: the published bundle")
    parser.add_argument(
        "--width", type=int, default=20, metavar="N",
        help="items a user; a request for more is searched (default: 20)",
    )  # fmt: skip
    parser.add_argument("--models", metavar="M,M", help="default: all of kinds factors and item_item")
    parser.add_argument(
        "--publish",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="serve it from now on (default: yes)",
    )


def run(args: argparse.Namespace) -> int:
    """Prove the bundle, compute, measure, write, prove again, publish; a table on stderr, one JSON line on stdout.

    Raises InputError and BundleRefused.
    """
    if not 1 <= args.width <= MAX_WIDTH:
        raise InputError(f"--width {args.width}: must be 1 to {MAX_WIDTH}")
    store = opened(args)
    with threadpool_limits(1):
        live = proved(chosen(store, args.bundle))
        bundle = live.bundle
        names = _chosen_models(args.models, bundle)
        added: dict[str, dict[str, Any]] = {}
        told: list[dict[str, Any]] = []
        for name in names:
            began = time.perf_counter()
            arrays = precompute(live.models[name].retriever, bundle, args.width, _progress(name, bundle))
            searched, listed = _measure(live.models[name], PrecomputedLists(arrays, args.width), bundle)
            kept = listed > 0 and searched >= FASTER * listed
            if kept:
                added[name] = arrays
            told.append({
                "model": name, "search_us": round(searched, 1), "list_us": round(listed, 1),
                "bytes": sum(array.nbytes for array in arrays.values()), "kept": kept,
                "seconds": round(time.perf_counter() - began, 1),
            })  # fmt: skip
        path = bundle.path if not added else _written(bundle, added, args.width, store.root)
        proved(path)
    if args.publish:
        store.publish(path.name)
    rows = [tuple(one.values()) for one in told]
    print(table(("model", "search µs", "list µs", "bytes", "kept", "seconds"), rows), file=sys.stderr)
    print(
        orjson.dumps(
            {
                "bundle": path.name,
                "of": bundle.bundle_id,
                "width": args.width,
                "published": args.publish,
                "models": told,
            }
        ).decode()
    )
    return 0


def _chosen_models(words: str | None, bundle: Bundle) -> list[str]:
    fit = [name for name, model in bundle.models.items() if model.entry.kind in KINDS]
    asked = fit if words is None else [word.strip() for word in words.split(",") if word.strip()]
    for name in asked:
        if name not in fit:
            raise InputError(
                f"--models {name!r}: there is none of kind {' or '.join(KINDS)}; there are: {', '.join(fit)}"
            )
        if bundle.models[name].entry.precomputed is not None:
            raise InputError(f"bundle {bundle.bundle_id}: model {name!r} has its candidates already")
    return asked


def _progress(name: str, bundle: Bundle) -> Any:
    total = len(bundle.user_ids)

    def tell(row: int) -> None:
        if (row + 1) % _SHOWN_EVERY == 0:
            print(f"{name}: {row + 1:,} of {total:,} users", file=sys.stderr, flush=True)

    return tell


def _measure(model: LiveModel, lists: PrecomputedLists, bundle: Bundle) -> tuple[float, float]:
    """Median microseconds of a search and of a look into the list, for the same users, turn by turn."""
    step = max(1, len(bundle.user_ids) // _PROBED)
    searches, looks = [], []
    for row in range(0, len(bundle.user_ids), step):
        user = UserState(row, bundle.history_of(row), live=False)
        rules = Eligible(user.history, None)
        began = time.perf_counter()
        found = lists.find(user, 10, rules)
        looked = time.perf_counter()
        if found is None:
            continue
        model.retriever.retrieve(user, 10, rules)
        searches.append(time.perf_counter() - looked)
        looks.append(looked - began)
    return (median(searches) * 1e6, median(looks) * 1e6) if looks else (0.0, 0.0)


def _written(bundle: Bundle, added: dict[str, dict[str, Any]], width: int, root: Path) -> Path:
    """Write the same bundle with lists; what it was made of is linked, or copied where that can't be."""
    manifest = bundle.manifest.model_dump(mode="json", exclude={"bundle_id", "created_at", "seal", "files"})
    with BundleWriter(root) as writer:
        for file, entry in bundle.manifest.files.items():
            writer.add_file(file, partial(_link, bundle.path / file), entry.dtype, entry.shape)
        for name, arrays in added.items():
            model = manifest["models"][name]
            model["precomputed"] = width
            for role, array in arrays.items():
                model["files"][role] = writer.add_array(f"{name}/{role}", array)
        return writer.finish(manifest)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
