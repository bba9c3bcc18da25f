"""A bundle's own vectors, read from its .npy files, and what an exhaustive search of them finds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.errors import BenchError


@dataclass(frozen=True, slots=True)
class Vectors:
    """One model's vectors, row by row with their ids, and what every user has seen.

    `users` and `items`: float32 (n, dim). `space`: hnswlib's name of it. `seen_indptr` int64 over all users of the
    catalogue; `seen_rows` int32, rows of the catalogue's items.
    """

    space: str
    users: NDArray[np.float32]
    items: NDArray[np.float32]
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    user_rows: NDArray[np.int32]
    all_item_ids: NDArray[np.int64]
    seen_indptr: NDArray[np.int64]
    seen_rows: NDArray[np.int32]

    def seen(self, row: int) -> NDArray[np.int64]:
        """Ids that the user of a row has seen."""
        user = self.user_rows[row]
        return self.all_item_ids[self.seen_rows[self.seen_indptr[user] : self.seen_indptr[user + 1]]]

    def best(self, row: int, k: int, *, unseen: bool) -> list[int]:
        """Ids of the k largest inner products, best first; `unseen`: of items not seen."""
        scores = self.items @ self.users[row]
        if unseen:
            scores[np.isin(self.item_ids, self.seen(row))] = -np.inf
        return [int(self.item_ids[n]) for n in np.argsort(-scores, kind="stable")[:k]]


def read_manifest(bundle: Path) -> dict[str, Any]:
    """What a bundle says of itself."""
    found: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return found


def published(artifacts: Path) -> Path:
    """Folder of the bundle that an artifacts folder serves. Raises BenchError."""
    pointer = artifacts / "current.json"
    if not pointer.is_file():
        raise BenchError(f"{artifacts}: nothing is published there ('reco build --out' makes and publishes)")
    return artifacts / "bundles" / str(json.loads(pointer.read_bytes())["bundle_id"])


def searched_model(manifest: dict[str, Any]) -> str:
    """Name of the model to ask: the default if it has vectors of users, else the first that has. Raises BenchError."""
    if manifest["user_id_kind"] != "int64" or manifest["item_id_kind"] != "int64":
        raise BenchError("the bench asks for integer ids; this bundle has others")
    default = manifest["default_model"]
    for name in sorted(manifest["models"], key=lambda name: name != default):
        model = manifest["models"][name]
        if model.get("space") == "ip" and "user_vectors" in model["files"]:
            return str(name)
    raise BenchError("the bundle has no model of user and item vectors searched by inner product")


def read_vectors(bundle: Path, model: str) -> Vectors:
    """Read what a model searches."""
    manifest = read_manifest(bundle)
    files, catalogue = manifest["models"][model]["files"], manifest["catalogue"]

    def array(path: str) -> NDArray[Any]:
        read: NDArray[Any] = np.load(bundle / path, allow_pickle=False)
        return read

    user_rows, all_items = array(files["user_rows"]), array(catalogue["item_ids_values"])
    return Vectors(
        manifest["models"][model]["space"],
        array(files["user_vectors"]),
        array(files["item_vectors"]),
        array(catalogue["user_ids_values"])[user_rows],
        all_items[array(files["item_rows"])],
        user_rows,
        all_items,
        array(catalogue["history_indptr"]),
        array(catalogue["history_items"]),
    )
