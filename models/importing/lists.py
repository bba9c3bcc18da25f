"""Recommendation lists made elsewhere: by user (kind lists), by item (kind item_item), or one for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.botify import read_recommendations
from models.data.identities import IdColumn
from models.data.tables import column_names, naming, open_bytes, scan_table
from models.data.values import Place, positions
from models.trained import TrainedModel
from service.errors import DataError


@dataclass(frozen=True, slots=True)
class Lists:
    """keys: whose lists (empty for everybody's). List i is items[indptr[i]:indptr[i + 1]], best first, unique in it."""

    file: Path
    by: Literal["user", "item", "all"]
    keys: IdColumn
    indptr: npt.NDArray[np.int64]
    items: IdColumn


def read_lists(path: Path) -> Lists:
    """Read JSON lines as `models.data.botify` knows them, or a table of user_id, item_id and, optionally, rank.

    Raises InputError where there is no such file; DataError naming the row, as for an item that is twice in a list.
    """
    with naming(path), open_bytes(path) as file:
        json = file.read(64).lstrip()[:1] in (b"{", b"[")
    return _from_json(path) if json else _from_table(path)


def _from_json(path: Path) -> Lists:
    read = read_recommendations(path)
    owner = np.repeat(np.arange(len(read)), np.diff(read.indptr))
    pairs = pl.DataFrame({"list": owner, "item": read.items})
    if (repeated := ~pairs.select(pl.struct(pl.all()).is_first_distinct()).to_series()).any():
        at = repeated.arg_max() or 0
        raise DataError(path, "an item is twice in a list", row=int(owner[at]) + 1, value=int(read.items[at]))
    keys, items = IdColumn(), IdColumn()
    keys.add(pl.Series(read.keys), Place(path, read.by))
    items.add(pl.Series(read.items), Place(path, "recommendations"))
    return Lists(path, read.by, keys, read.indptr, items)


def _from_table(path: Path) -> Lists:
    lazy = scan_table(path)
    found = column_names(lazy, path)
    key, item = "user_id", "item_id"
    for column in (key, item):
        if column not in found:
            raise DataError(path, f"no column {column!r}; the columns are {', '.join(found)}")
    with naming(path):
        frame = lazy.collect()
    if frame.is_empty():
        raise DataError(path, "no recommendations in it")
    IdColumn().add(frame[key], Place(path, key))  # before the sort, so that a fault names its row
    IdColumn().add(frame[item], Place(path, item))
    if (repeated := ~frame.select(pl.struct(key, item).is_first_distinct()).to_series()).any():
        raise Place(path, item).fault(frame[item], repeated, "the item is twice in a list")
    if "rank" in found:
        frame = frame.with_columns(pl.Series("rank", positions(frame["rank"], Place(path, "rank"))))
        frame = frame.sort(key, "rank", maintain_order=True)
    else:
        frame = frame.sort(key, maintain_order=True)
    lengths = frame.group_by(key, maintain_order=True).len()
    keys, items = IdColumn(), IdColumn()
    keys.add(lengths[key], Place(path, key))
    items.add(frame[item], Place(path, item))
    indptr = np.concatenate(([0], np.cumsum(lengths["len"].to_numpy()))).astype(np.int64)
    return Lists(path, "user", keys, indptr, items)


def trained(
    lists: Lists, key_rows: npt.NDArray[np.int32], item_rows: npt.NDArray[np.int32], n_keys: int
) -> TrainedModel:
    """Make the model. A place's score is 1 / rank: files of lists hold an order, no scores.

    key_rows: int32 (n_lists,), rows of `lists.keys`; item_rows: int32, rows of `lists.items`; n_keys: users, or
    items for lists by item, in the data set.
    """
    lengths = np.diff(lists.indptr)
    rank = np.arange(1, len(item_rows) + 1) - np.repeat(lists.indptr[:-1], lengths)
    order = np.argsort(key_rows, kind="stable")
    places = np.concatenate([np.arange(lists.indptr[i], lists.indptr[i + 1]) for i in order.tolist()])
    counts = np.zeros(n_keys, np.int64)
    counts[key_rows] = lengths
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    scores = (1.0 / rank[places]).astype(np.float32)
    training = {"algorithm": "imported lists", "file": lists.file.name, "lists": len(key_rows)}
    if lists.by == "item":
        arrays = {"indptr": indptr, "indices": item_rows[places], "weights": scores}
        return TrainedModel("item_item", arrays, training=training)
    return TrainedModel(
        "lists", {"indptr": indptr, "items": item_rows[places], "scores": scores}, training=training
    )


def most_listed(item_rows: npt.NDArray[np.int32], n_items: int) -> npt.NDArray[np.int32]:
    """int32: rows of the items by how many lists name them, then by row; those that none names are left out."""
    counts = np.bincount(item_rows, minlength=n_items)
    order = np.lexsort((np.arange(n_items), -counts))
    return order[: int((counts > 0).sum())].astype(np.int32)
