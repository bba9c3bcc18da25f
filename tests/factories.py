"""Small data with a known answer, and the bundle made of it, for tests in every room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from models.build.assemble import assemble
from models.build.index import IndexChoice
from models.data.dataset import Dataset
from models.trained import TrainedModel
from service.bundle.ids import Ids, IntIds, StrIds
from service.bundle.store import ArtifactStore
from service.bundle.two_stage import TREE_DTYPES

DIM = 8


def tiny_dataset(
    n_users: int = 60, n_items: int = 40, *, seed: int = 7, ids: str = "int64", events_per_user: int = 8
) -> Dataset:
    """Two taste blocks: users of even rows like items of even rows. The last five users have no events.

    Integer ids are 100, 103, 106, … for users and 10, 12, 14, … for items; string ids are u000… and item/000….
    """
    generator = np.random.default_rng(seed)
    user_rows, item_rows = [], []
    for user in range(n_users - 5):
        own = np.arange(user % 2, n_items, 2)
        taste = 1.0 / (1 + np.arange(len(own)))
        chosen = generator.choice(
            own, min(events_per_user, len(own) - 2), replace=False, p=taste / taste.sum()
        )
        user_rows += [user] * len(chosen)
        item_rows += chosen.tolist()
    users: Ids
    items: Ids
    if ids == "int64":
        users, items = IntIds(100 + 3 * np.arange(n_users)), IntIds(10 + 2 * np.arange(n_items))
    else:
        users = StrIds.of(f"u{row:03d}" for row in range(n_users))
        items = StrIds.of(f"item/{row:03d}" for row in range(n_items))
    count = len(user_rows)
    return Dataset(
        name="tiny",
        user_ids=users,
        item_ids=items,
        user_rows=np.array(user_rows, np.int32),
        item_rows=np.array(item_rows, np.int32),
        weights=np.ones(count, np.float32),
        times=np.arange(count, dtype=np.int64) * 86_400_000,
        time_kind="timestamp",
        items=pl.DataFrame(
            {
                "title": [f"Title {row}" for row in range(n_items)],
                "genres": [["drama"] if row % 4 else ["comedy", "drama"] for row in range(n_items)],
                "kind": ["film" if row % 10 else "series" for row in range(n_items)],
            }
        ),
        fingerprint=f"tiny-{seed}",
    )


def read_in_order(readings: list[list[int]], n_items: int) -> Dataset:
    """One user a list of items, oldest first."""
    users = [user for user, items in enumerate(readings) for _ in items]
    return Dataset(
        "ordered",
        IntIds(np.arange(len(readings))),
        IntIds(np.arange(n_items)),
        np.array(users, np.int32),
        np.array([item for items in readings for item in items], np.int32),
        np.ones(len(users), np.float32),
        np.array([place for items in readings for place in range(len(items))], np.int64),
        "position",
    )


def four_tastes(n_users: int = 120, n_items: int = 40, *, seed: int = 5) -> Dataset:
    """Four groups, each reading evenly among ten items of its own: popularity can't tell them apart."""
    generator = np.random.default_rng(seed)
    group = np.arange(n_users) % 4
    picks = [generator.choice(10, 6, replace=False) * 4 + own for own in group]
    return replace(
        tiny_dataset(n_users, n_items),
        user_rows=np.repeat(np.arange(n_users), 6).astype(np.int32),
        item_rows=np.concatenate(picks).astype(np.int32),
        weights=np.ones(n_users * 6, np.float32),
        times=np.arange(n_users * 6, dtype=np.int64),
    )


def trained_models(dataset: Dataset, *, seed: int = 7, space: Any = "ip") -> dict[str, TrainedModel]:
    """One model of each kind, solved in closed form from the data: no trainer is involved."""
    matrix = dataset.matrix(binary=True).toarray()
    counts = matrix.sum(axis=0)
    order = np.lexsort((np.arange(dataset.n_items), -counts)).astype(np.int32)
    half = (np.arange(dataset.n_users) % 2 + 1).astype(np.int32)
    segments = [order, order[order % 2 == 0], order[order % 2 == 1]]
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    scale = np.sqrt(values[:DIM])
    noise = np.random.default_rng(seed).normal(0, 1e-3, (dataset.n_items, DIM))
    item_vectors = (right[:DIM].T * scale + noise).astype(np.float32)
    active = np.flatnonzero(matrix.sum(axis=1)).astype(np.int32)
    user_vectors = (left[:, :DIM] * scale).astype(np.float32)[active]
    likeness = (matrix.T @ matrix).astype(np.float32)
    np.fill_diagonal(likeness, 0)
    rows, columns = np.nonzero(likeness)
    lists = [
        order[np.isin(order, np.flatnonzero(row), invert=True)][:7] if row.any() else order[:0]
        for row in matrix
    ]
    return {
        "popular": TrainedModel(
            "popular",
            {**_csr(segments, counts), "user_segment": half},
            parameters={"segments": ["everybody", "even", "odd"]},
        ),
        "als": TrainedModel(
            "factors",
            {
                "item_rows": np.arange(dataset.n_items, dtype=np.int32),
                "item_vectors": item_vectors,
                "user_rows": active,
                "user_vectors": user_vectors,
            },
            space=space,
            parameters={"fold_in": {"regularization": 0.1, "alpha": 2.0}} if space == "ip" else {},
        ),
        "knn": TrainedModel(
            "item_item",
            {
                "indptr": np.concatenate(
                    ([0], np.cumsum(np.bincount(rows, minlength=dataset.n_items)))
                ).astype(np.int64),
                "indices": columns.astype(np.int32),
                "weights": likeness[rows, columns],
            },
        ),
        "ease": TrainedModel("item_item", {"dense": likeness}),
        "lists": TrainedModel("lists", _csr(lists, counts)),
    }


FEATURES = ("score:ease", "rank:als", "item:readers", "user:events", "taste_last5:genres", "near:knn:last3")


def two_stage_model(
    dataset: Dataset, *, sources: Iterable[str] = ("ease", "als", "knn", "popular")
) -> TrainedModel:
    """Three small trees over the models of `trained_models`: what EASE says counts most, what is read much a little."""
    matrix = dataset.matrix(binary=True).toarray()
    trees = [
        # feature, threshold, nan_right, left, right, value; children by their places in the tree
        [(0, 0.5, 0, 1, 2, 0), (-1, 0, 0, -1, -1, -1.0), (0, 6.5, 1, 3, 4, 0), (-1, 0, 0, -1, -1, 0.25),
         (1, 4.5, 1, 5, 6, 0), (-1, 0, 0, -1, -1, 1.5), (-1, 0, 0, -1, -1, 1.0)],
        [(2, 9.5, 0, 1, 2, 0), (3, 3.5, 1, 3, 4, 0), (-1, 0, 0, -1, -1, 0.125), (-1, 0, 0, -1, -1, -0.0625),
         (5, 2.5, 0, 5, 6, 0), (-1, 0, 0, -1, -1, 0.0), (-1, 0, 0, -1, -1, 0.03125)],
        [(4, 0.75, 0, 1, 2, 0), (-1, 0, 0, -1, -1, 0.0), (-1, 0, 0, -1, -1, 0.015625)],
    ]  # fmt: skip
    columns = list(zip(*[node for tree in trees for node in tree], strict=True))
    kinds = (np.int32, np.float32, np.uint8, np.int32, np.int32, np.float32)
    indptr = np.concatenate(([0], np.cumsum([len(tree) for tree in trees]))).astype(np.int64)
    arrays = [indptr, *(np.array(c, kind) for c, kind in zip(columns, kinds, strict=True))]
    return TrainedModel(
        "two_stage",
        {
            **dict(zip(TREE_DTYPES, arrays, strict=True)),
            "item_features": matrix.sum(axis=0, dtype=np.float32)[:, None],
            "user_features": matrix.sum(axis=1, dtype=np.float32)[:, None],
        },
        parameters={
            "sources": [{"model": name, "quota": 12} for name in sources],
            "n_candidates": 30,
            "features": list(FEATURES),
            "item_features": ["readers"],
            "user_features": ["events"],
            "bias": 0.5,
        },
    )


def write_tiny_bundle(
    root: Path,
    *,
    dataset: Dataset | None = None,
    models: Mapping[str, TrainedModel] | None = None,
    index: IndexChoice = "auto",
    default_model: str = "als",
    publish: bool = True,
) -> Path:
    """Write (and publish) a bundle of the tiny data; returns its folder."""
    dataset = dataset or tiny_dataset()
    path = assemble(
        root, dataset, models or trained_models(dataset), default_model=default_model, index=index
    ).path
    if publish:
        ArtifactStore(root).publish(path.name)
    return path


def _csr(lists: Iterable[npt.NDArray[np.int32]], counts: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    lists = list(lists)
    items = np.concatenate(lists)
    lengths = [len(one) for one in lists]
    return {
        "indptr": np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        "items": items,
        "scores": counts[items].astype(np.float32),
    }
