"""`reco bundle import`: serve vectors, or recommendation lists, that were trained elsewhere."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from models.importing.catalogue import read_surroundings
from models.importing.id_lists import ids_of
from models.importing.imported import (
    Imported,
    Named,
    check_name,
    import_lists,
    import_vectors,
    without_zeros,
)
from models.importing.lists import Lists, read_lists
from models.importing.tower import GivenTower, read_tower_file
from models.importing.vectors import has_users, read_vectors
from models.progress import CONSOLE
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import InputError
from service.recommender.live import LiveBundle, go_live

HELP = "Make a bundle of vectors or recommendation lists trained elsewhere"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the artifacts folder")
    vectors = parser.add_argument_group("vectors (.npy, .npz, implicit's .npz, .safetensors, Parquet)")
    for owner in ("item", "user"):
        vectors.add_argument(f"--{owner}-vectors", type=Path, metavar="FILE", help=f"one {owner} a row")
        vectors.add_argument(
            f"--{owner}-ids", type=Path, metavar="FILE",
            help="their ids, row by row: .txt, .csv, .json, .npy, Parquet (default: the file's own, else row numbers)",
        )  # fmt: skip
        vectors.add_argument(
            f"--{owner}-tensor", metavar="NAME", help="which array, or list column, where there are several"
        )
        vectors.add_argument(
            f"--{owner}-id-column", metavar="NAME", help=f"the id column's name (default: {owner}_id or id)"
        )
    vectors.add_argument(
        "--space", choices=("ip", "cosine", "l2"), default="ip", help="how near is measured (default: ip)"
    )
    vectors.add_argument(
        "--index",
        choices=("auto", "exact", "hnsw", "ivf", "none"),
        default="auto",
        help="default: what measures best",
    )
    vectors.add_argument(
        "--drop-zero", action="store_true", help="leave zero vectors out instead of refusing them"
    )
    tower = parser.add_argument_group(
        "a tower: an ONNX graph from history (int64 (1, n), rows of the item vectors plus one, oldest first, a single "
        "0 where there is none) and features (float32 (1, m)), or one of them, to vector (float32 (1, dim))"
    )
    tower.add_argument("--tower", type=Path, metavar="FILE", help="the ONNX file, self-contained")
    tower.add_argument(
        "--tower-history", type=int, default=50, metavar="N", help="latest items it is given (default: 50)"
    )
    tower.add_argument(
        "--user-features",
        type=Path,
        metavar="FILE",
        help="what it is told of users, one a row, as --user-vectors",
    )
    tower.add_argument(
        "--user-feature-ids", type=Path, metavar="FILE", help="their ids, row by row, as --user-ids"
    )
    parser.add_argument(
        "--lists", action="append", metavar="[NAME=]FILE",
        help="ready lists instead of vectors: JSON lines {user, tracks} or {item_id, recommendations}, one JSON array, "
        "or a table user_id, item_id[, rank]; give it several times, with names, for several models in one bundle",
    )  # fmt: skip
    parser.add_argument(
        "--history", type=Path, metavar="DATA", help="what users have seen: any data 'reco build' reads"
    )
    parser.add_argument(
        "--items", type=Path, metavar="FILE", help="titles and attributes: a table with item_id"
    )
    parser.add_argument("--name", default="imported", help="the model's name in URLs (default: imported)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the index and its measurement (default: 0)"
    )
    parser.add_argument(
        "--publish",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="serve it from now on (default: yes)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, write, prove, publish; a table on stderr, and one JSON line on stdout."""
    began = time.perf_counter()
    check_name(args.name)
    if (args.item_vectors is None) == (args.lists is None):
        raise InputError("give either --item-vectors or --lists")
    if args.lists is not None and args.tower is not None:
        raise InputError("--tower goes with --item-vectors")
    around = read_surroundings(args.history, args.items)
    if args.lists is not None:
        lists = _named_lists(args.lists, args.name)
        with CONSOLE.status("writing the bundle"):
            imported = import_lists(args.out, lists, around, seed=args.seed)
    else:
        items, users = _named(args)
        tower = _tower(args, items)
        with CONSOLE.status("building the index and measuring what it finds"):
            imported = import_vectors(
                args.out,
                items,
                users,
                around,
                name=args.name,
                space=args.space,
                index=args.index,
                seed=args.seed,
                tower=tower,
            )
    live = go_live(load_bundle(imported.path))
    if args.publish:
        ArtifactStore(args.out).publish(live.bundle_id)
    summary = _summary(args, imported, live, time.perf_counter() - began)
    _show(summary)
    print(orjson.dumps(summary).decode())
    return 0


def _named(args: argparse.Namespace) -> tuple[Named, Named | None]:
    items = read_vectors(args.item_vectors, "item", tensor=args.item_tensor, id_column=args.item_id_column)
    item_ids = ids_of(items, "item", args.item_ids, column=args.item_id_column)
    named = without_zeros(items, item_ids, drop=args.drop_zero)
    user_file = args.user_vectors
    if user_file is None and has_users(args.item_vectors) and args.item_tensor is None:
        user_file = args.item_vectors
    if user_file is None:
        if args.user_ids is not None:
            raise InputError("--user-ids goes with --user-vectors")
        return named, None
    users = read_vectors(user_file, "user", tensor=args.user_tensor, id_column=args.user_id_column)
    user_ids = ids_of(users, "user", args.user_ids, column=args.user_id_column)
    return named, without_zeros(users, user_ids, drop=args.drop_zero)


def _tower(args: argparse.Namespace, items: Named) -> GivenTower | None:
    if args.tower is None:
        for flag in ("user_features", "user_feature_ids"):
            if getattr(args, flag) is not None:
                raise InputError(f"--{flag.replace('_', '-')} goes with --tower")
        return None
    if items.dropped:
        raise InputError("--tower: it names items by their rows, so none can be left out by --drop-zero")
    features = None
    if args.user_features is not None:
        table = read_vectors(args.user_features, "user", id_column=args.user_id_column)
        features = table, ids_of(table, "user", args.user_feature_ids, column=args.user_id_column)
    return read_tower_file(args.tower, args.tower_history, features, items=items.vectors)


def _named_lists(given: list[str], default_name: str) -> dict[str, Lists]:
    """Read NAME=FILE, or FILE for a single one; a list for everybody needs no name, as it becomes 'popular'."""
    lists: dict[str, Lists] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or Path(text).is_file():
            name, file = default_name, text
        check_name(name)
        read = read_lists(Path(file))
        if read.by == "all" and not any(one.by == "all" for one in lists.values()):
            name = "popular"
        if name in lists:
            raise InputError(f"--lists {text}: a second model {name!r}; name each, as --lists NAME=FILE")
        lists[name] = read
    return lists


def _summary(
    args: argparse.Namespace, imported: Imported, live: LiveBundle, seconds: float
) -> dict[str, Any]:
    model = live.resolve("default")
    manifest, entry = live.bundle.manifest, model.data.entry
    found: dict[str, Any] = {"retriever": None, "recall": None}
    if entry.retrieval is not None:
        found = {"retriever": entry.retrieval.retriever, "recall": entry.retrieval.recall.model_dump()}
        index = entry.retrieval.index
        recall = None if index is None else entry.retrieval.recall_of(index)
        if recall is not None:
            found["index_recall"] = recall.model_dump()
    serve = f"reco serve --artifacts {args.out}"
    return {
        "bundle_id": live.bundle_id,
        "path": str(imported.path),
        "model": model.name,
        "kind": entry.kind,
        "users": manifest.data.n_users,
        "items": manifest.data.n_items,
        "dim": entry.dim,
        "space": entry.space,
        **found,
        **imported.notes,
        "published": args.publish,
        "seconds": round(seconds, 2),
        "next": serve if args.publish else f"reco bundle publish {live.bundle_id} --artifacts {args.out}",
    }


def _show(summary: dict[str, Any]) -> None:
    table = Table("", "", show_header=False, box=None)
    for name, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items()) or "nothing"  # noqa: PLW2901
        table.add_row(name.replace("_", " "), "-" if value is None else str(value))
    CONSOLE.print(table)
