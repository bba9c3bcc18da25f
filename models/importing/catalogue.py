"""Everything that names items and users, numbered together: one data set around what was imported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.botify import read_tracks
from models.data.dataset import Dataset
from models.data.events import fingerprint
from models.data.features import FeatureTable, read_features
from models.data.identities import IdColumn, number
from models.data.read import read_dataset
from models.data.tables import naming, open_bytes
from models.data.values import Place
from models.trained import TrainedModel
from service.bundle.ids import Ids, IntIds
from service.errors import InputError

Rows = npt.NDArray[np.int32]
_NOBODY = IntIds(np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What may come with the import: events of users, and a table of items."""

    history: Dataset | None = None
    items: FeatureTable | None = None


@dataclass(frozen=True, slots=True)
class Numbered:
    """The data set, and for every imported column of ids the rows in it, in the order they were imported."""

    dataset: Dataset
    item_rows: tuple[Rows, ...]
    user_rows: tuple[Rows, ...]


def read_surroundings(history: Path | None, items: Path | None) -> Surroundings:
    """Read the events (any layout that `reco build` reads) and the items' table. Raises InputError, DataError."""
    table = None
    if items is not None:
        with naming(items), open_bytes(items) as file:
            lines = file.read(64).lstrip().startswith(b"{")
        table = read_tracks(items) if lines else read_features(items, "item_id")
    return Surroundings(None if history is None else read_dataset(history), table)


def numbered(
    name: str,
    items: Sequence[IdColumn],
    users: Sequence[IdColumn],
    around: Surroundings,
    files: Iterable[Path],
) -> Numbered:
    """Number the imported ids together with those around them; `files` are what was imported.

    Raises InputError where the events name none of the imported items: the ids are not the same ones then.
    """
    history = around.history
    item_columns, user_columns = [*items], [*users]
    if history is not None:
        item_columns.append(_column(history.item_ids))
        user_columns.append(_column(history.user_ids))
    if around.items is not None:
        item_columns.append(around.items.ids)
    item_ids, all_item_rows = number(item_columns)
    user_ids, all_user_rows = number(user_columns) if user_columns else (_NOBODY, [])
    item_rows, other_items = all_item_rows[: len(items)], all_item_rows[len(items) :]
    user_rows, other_users = all_user_rows[: len(users)], all_user_rows[len(users) :]
    if history is not None and not np.isin(other_items[0], np.concatenate(item_rows)).any():
        raise InputError(
            f"no item of the history is among those of {name} (for example "
            f"{history.item_ids.take(np.zeros(1, int))[0]!r} and {items[0].finish()[0]!r}): are these the same ids?"
        )
    features = None
    if around.items is not None:
        features = around.items.in_order(other_items[-1], len(item_ids))
    elif history is not None and history.items is not None:
        features = FeatureTable((), item_columns[len(items)], history.items).in_order(
            other_items[0], len(item_ids)
        )
    read = [*files, *(around.items.files if around.items else ())]
    digest = hashlib.sha256(
        (fingerprint(read) + (history.fingerprint if history else "")).encode()
    ).hexdigest()
    if history is None:
        dataset = Dataset(
            name=name,
            user_ids=user_ids,
            item_ids=item_ids,
            user_rows=np.empty(0, np.int32),
            item_rows=np.empty(0, np.int32),
            weights=np.empty(0, np.float32),
            times=None,
            time_kind=None,
            items=features,
            fingerprint=digest,
        )
    else:
        dataset = replace(
            history,
            name=name,
            user_ids=user_ids,
            item_ids=item_ids,
            user_rows=other_users[0][history.user_rows],
            item_rows=other_items[0][history.item_rows],
            users=None,
            items=features,
            fingerprint=digest,
        )
    return Numbered(dataset, tuple(item_rows), tuple(user_rows))


def _column(ids: Ids) -> IdColumn:
    values = ids.values if isinstance(ids, IntIds) else ids.take(np.arange(len(ids)))
    column = IdColumn()
    column.add(
        pl.Series(values, dtype=pl.Int64 if ids.kind == "int64" else pl.Utf8), Place(Path("history"), "id")
    )
    return column


def popular_in_order(dataset: Dataset, first: Rows, told_by: str) -> TrainedModel:
    """The fallback in a given order where there are no events to count; the rest of the catalogue after it, by row.

    first: unique item rows, best first; told_by: where that order is from, kept in the manifest.
    """
    rest = np.setdiff1d(np.arange(dataset.n_items, dtype=np.int32), first)
    order = np.concatenate((first, rest)).astype(np.int32)
    return TrainedModel(
        "popular",
        {
            "indptr": np.array([0, len(order)], np.int64),
            "items": order,
            "scores": np.linspace(1, 0, len(order), endpoint=False, dtype=np.float32),
            "user_segment": np.zeros(dataset.n_users, np.int32),
        },
        parameters={"segments": ["all"]},
        training={"algorithm": told_by},
    )
