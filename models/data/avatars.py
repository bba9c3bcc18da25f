"""Avatars: made-up users of a plain taste, trained among the real ones to see with one's own eyes what they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.dataset import Dataset
from service.bundle.ids import UNKNOWN, Ids, IntIds, StrIds
from service.domain import ItemId, UserId
from service.errors import InputError

TITLE_COLUMNS = ("title", "name")


@dataclass(frozen=True, slots=True)
class WithAvatars:
    """A data set with avatars in it, and the user id that each was given."""

    dataset: Dataset
    user_ids: Mapping[str, UserId]


def add_avatars(dataset: Dataset, avatars: Mapping[str, Sequence[ItemId]]) -> WithAvatars:
    """Add one user an avatar, who has just read the items listed (ids or exact titles), in their order.

    Integer ids follow the largest there is; text ids are "avatar:NAME". Features of avatars are unknown.
    Raises InputError for an item that is neither an id nor exactly one title, or an avatar that lists nothing.
    """
    items = {name: _rows_of(dataset, name, listed) for name, listed in avatars.items()}
    user_ids, own_ids, new_row_of = _extended(dataset.user_ids, list(avatars))
    names = list(items)
    extra_users = [user_ids.row_of(own_ids[name]) for name in names for _ in items[name]]
    extra_items = [row for name in names for row in items[name]]
    count = len(extra_items)
    times = None
    if dataset.times is not None:
        places = np.array([place for name in names for place in range(len(items[name]))], np.int64)
        if dataset.time_kind == "timestamp":
            places = np.full(count, dataset.times.max(initial=0))
        times = np.concatenate([dataset.times, places])
    typical = float(dataset.weights.mean(dtype=np.float64)) if len(dataset) else 1.0
    extended = replace(
        dataset,
        user_ids=user_ids,
        user_rows=np.concatenate([new_row_of[dataset.user_rows], np.array(extra_users, np.int32)]),
        item_rows=np.concatenate([dataset.item_rows, np.array(extra_items, np.int32)]),
        weights=np.concatenate([dataset.weights, np.full(count, typical, np.float32)]),
        times=times,
        ratings=None if dataset.ratings is None else _padded(dataset.ratings, count),
        signals={name: _padded(values, count) for name, values in dataset.signals.items()},
        users=_rows_for_all(dataset.users, new_row_of, len(user_ids)),
    )
    return WithAvatars(extended, own_ids)


def _padded(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    return np.concatenate([values, np.full(count, np.nan, np.float32)])


def _rows_of(dataset: Dataset, avatar: str, listed: Sequence[ItemId]) -> list[int]:
    if not listed:
        raise InputError(f"avatar {avatar!r} lists no items")
    titles = _titles(dataset)
    rows = []
    for item in listed:
        row = dataset.item_ids.row_of(item)
        if row == UNKNOWN:
            named = titles.get(item, []) if isinstance(item, str) else []
            if len(named) != 1:
                what = f"{len(named)} items have that title" if named else "no item has that id or title"
                raise InputError(f"avatar {avatar!r}: {item!r}: {what}")
            row = named[0]
        rows.append(row)
    return list(dict.fromkeys(rows))


def _titles(dataset: Dataset) -> dict[str, list[int]]:
    column = next(
        (name for name in TITLE_COLUMNS if dataset.items is not None and name in dataset.items), None
    )
    found: dict[str, list[int]] = {}
    if dataset.items is not None and column is not None:
        for row, title in enumerate(dataset.items[column].to_list()):
            if title is not None:
                found.setdefault(str(title), []).append(row)
    return found


def _extended(ids: Ids, avatars: Sequence[str]) -> tuple[Ids, dict[str, UserId], Any]:
    """All ids; the avatars' own; int32 (n,), the new row of each old one."""
    own: dict[str, UserId]
    extended: Ids
    if isinstance(ids, IntIds):
        first = int(ids.values[-1]) + 1 if len(ids) else 0
        own = {name: first + place for place, name in enumerate(avatars)}
        extended = IntIds(np.concatenate([ids.values, first + np.arange(len(avatars), dtype=np.int64)]))
        return extended, own, np.arange(len(ids), dtype=np.int32)
    old = ids.take(np.arange(len(ids)))
    own = {name: f"avatar:{name}" for name in avatars}
    if taken := next((user for user in own.values() if ids.row_of(user) != UNKNOWN), None):
        raise InputError(f"avatar {str(taken)[7:]!r}: the data has a user {taken!r} already")
    extended = StrIds.of([*old, *map(str, own.values())])
    return extended, own, extended.rows_of(old).astype(np.int32)


def _rows_for_all(users: pl.DataFrame | None, new_row_of: Any, n_users: int) -> pl.DataFrame | None:
    if users is None:
        return None
    old_row_of = np.full(n_users, -1, np.int64)
    old_row_of[new_row_of] = np.arange(len(new_row_of))
    places = pl.Series([None if row < 0 else row for row in old_row_of.tolist()], dtype=pl.UInt32)
    return users.select(pl.all().gather(places))
