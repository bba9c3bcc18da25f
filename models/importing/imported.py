"""From files of vectors or lists to a written bundle (not yet published)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.build.assemble import assemble
from models.build.index import IndexChoice
from models.data.dataset import Dataset
from models.importing import lists as lists_file
from models.importing.catalogue import Surroundings, numbered, popular_in_order
from models.importing.id_lists import IdList
from models.importing.probes import probes_of
from models.importing.tower import GivenTower, refuse_unless_reproduced, vectors_by_tower
from models.importing.vectors import VectorTable, is_zero
from models.popularity import popularity
from models.trained import TrainedModel
from service.domain import Space
from service.errors import DataError, InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_BY_EVENTS, _IN_ORDER = "events of the history", "order of the imported items"
RESERVED_NAMES = frozenset({"default", "popular"})


@dataclass(frozen=True, slots=True)
class Imported:
    """The bundle's folder, and what was done on the way to it, for the report."""

    path: Path
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Named:
    """Vectors and whose they are, row by row."""

    vectors: VectorTable
    ids: IdList
    dropped: int = 0
    """Rows left out because their vector was zero."""


def import_vectors(
    out: Path,
    items: Named,
    users: Named | None,
    around: Surroundings,
    *,
    name: str,
    space: Space,
    index: IndexChoice = "auto",
    seed: int = 0,
    tower: GivenTower | None = None,
) -> Imported:
    """Write a bundle with one factors model and `popular`. Users without a vector are solved from their history, or by
    the `tower`, which also computes the vectors of those it is told of where no `users` are given.

    With the regularization and alpha of an implicit ALS model in inner-product space they are solved as ALS would
    (`service.recommender.fold_in`), else by the mean of the history's vectors. Raises DataError where vectors of
    users and items differ in length or the tower doesn't reproduce those of users, InputError where the history names
    none of the items.
    """
    dim = items.vectors.values.shape[1]
    if users is not None and users.vectors.values.shape[1] != dim:
        reason = (
            f"vectors of {users.vectors.values.shape[1]} numbers; those of {items.vectors.file} have {dim}"
        )
        raise DataError(users.vectors.file, reason)
    files = {items.vectors.file, items.ids.file}
    if users is not None:
        files |= {users.vectors.file, users.ids.file}
    name_of_data = items.vectors.file.name.split(".")[0]
    user_columns = [] if users is None else [users.ids.column]
    if tower is not None:
        files.add(tower.file)
        if tower.feature_ids is not None:
            user_columns.append(tower.feature_ids.column)
    all_rows = numbered(name_of_data, [items.ids.column], user_columns, around, files)
    (item_rows,) = all_rows.item_rows
    user_rows = np.empty(0, np.int32) if users is None else all_rows.user_rows[0]
    dataset = replace(all_rows.dataset, dropped={**all_rows.dataset.dropped, **_dropped(items, users)})

    by_row = np.argsort(user_rows, kind="stable")
    fold_in = items.vectors.fold_in if users is not None and space == "ip" else None
    if fold_in is not None and not (fold_in["regularization"] > 0 and fold_in["alpha"] > 0):
        fold_in = None  # the solver's matrix could be singular
    user_rows = user_rows[by_row]
    user_vectors = np.empty((0, dim), np.float32) if users is None else users.vectors.values[by_row]
    model = TrainedModel(
        "factors",
        {
            "item_rows": item_rows,
            "item_vectors": items.vectors.values,
            "user_rows": user_rows,
            "user_vectors": user_vectors,
        },
        space=space,
        parameters={} if fold_in is None else {"fold_in": dict(fold_in)},
        training={"algorithm": "imported vectors", "file": items.vectors.file.name},
    )
    if tower is not None:
        file = None if users is None else users.vectors.file
        model = with_tower(model, tower, dataset, all_rows.user_rows[-1:], users_file=file)
        user_rows = model.arrays["user_rows"]
    asked_with, probes = "the users' vectors", {}
    if len(user_rows) == 0:
        probes = {name: probes_of(dataset, model, seed=seed)}
        invented = not (probes[name].user_rows >= 0).any()
        asked_with = "means of random items" if invented else "means of the users' histories"
    path = assemble(
        out,
        dataset,
        {"popular": _popular(dataset, item_rows, _IN_ORDER), name: model},
        default_model=name,
        seed=seed,
        index=index,
        probes=probes,
    ).path
    notes = {
        "popularity": _BY_EVENTS if len(dataset) else _IN_ORDER,
        "fold_in": _solved_by(model),
        "recall_asked_with": asked_with,
        "items_without_vector": dataset.n_items - len(item_rows),
        "users_without_vector": dataset.n_users - len(user_rows),
        "dropped": dict(dataset.dropped),
    }
    return Imported(path, notes)


def with_tower(
    model: TrainedModel,
    tower: GivenTower,
    dataset: Dataset,
    feature_rows: Sequence[npt.NDArray[np.int32]],
    *,
    users_file: Path | None,
) -> TrainedModel:
    """Add a tower to imported vectors, and its vectors of users where none were given (`users_file` None)."""
    arrays, features = dict(model.arrays), None
    if tower.features is not None:
        features = np.zeros((dataset.n_users, tower.features.values.shape[1]), np.float32)
        features[feature_rows[0]] = tower.features.values
        arrays["user_features"] = features
    if users_file is None:
        rows, vectors = vectors_by_tower(tower, dataset, arrays["item_rows"], features)
        if len(rows):
            arrays |= {"user_rows": rows, "user_vectors": vectors}
    else:
        refuse_unless_reproduced(
            tower, dataset, arrays["user_vectors"], arrays["user_rows"], arrays["item_rows"], features,
            file=users_file, unit=model.space == "cosine",
        )  # fmt: skip
    settings: dict[str, Any] = {"history_length": tower.history_length}
    if tower.features is not None:
        settings["features"] = list(tower.features.columns)
    return replace(
        model,
        arrays=arrays,
        tower=tower.raw,
        parameters={**model.parameters, "tower": settings},
        training={**model.training, "tower": tower.file.name},
    )


def import_lists(
    out: Path, named: Mapping[str, lists_file.Lists], around: Surroundings, *, seed: int = 0
) -> Imported:
    """Write a bundle that answers with lists made elsewhere, a model a name: by user, by item (summed over the user's
    history), or one list for everybody, which then is what is popular. Raises InputError as `numbered` does, and for
    two lists for everybody."""
    items, users = [], []
    for one in named.values():
        items.append(one.items)
        if one.by == "item":
            items.append(one.keys)
        elif one.by == "user":
            users.append(one.keys)
    files = [one.file for one in named.values()]
    all_rows = numbered(files[0].name.split(".")[0], items, users, around, files)
    dataset, item_rows, user_rows = all_rows.dataset, iter(all_rows.item_rows), iter(all_rows.user_rows)
    everybody: tuple[str, npt.NDArray[np.int32]] | None = None
    models, listed = {}, []
    for name, one in named.items():
        rows = next(item_rows)
        if one.by == "all":
            if everybody is not None:
                raise InputError(f"{one.file}: a second list for everybody; what is popular has one order")
            everybody = f"the list {one.file.name}", rows
            continue
        listed.append(rows)
        key_rows = next(user_rows if one.by == "user" else item_rows)
        n_keys = dataset.n_users if one.by == "user" else dataset.n_items
        models[name] = lists_file.trained(one, key_rows, rows, n_keys)
    default = next(iter(models), "popular")
    if everybody is not None:
        told_by, order = everybody
        models["popular"] = popular_in_order(dataset, order, told_by)
    else:
        told_by = _BY_EVENTS if len(dataset) else "how many lists name the item"
        order = lists_file.most_listed(np.concatenate(listed), dataset.n_items)
        models["popular"] = _popular(dataset, order, told_by)
    path = assemble(out, dataset, models, default_model=default, seed=seed).path
    notes = {
        "popularity": told_by,
        "lists": sum(len(one.indptr) - 1 for one in named.values()),
        "lists_by": ", ".join(dict.fromkeys(one.by for one in named.values())),
    }
    return Imported(path, {**notes, "dropped": dict(dataset.dropped)})


def without_zeros(vectors: VectorTable, ids: IdList, *, drop: bool) -> Named:
    """Leave zero vectors out, or refuse them: they have no direction, so nothing is near them.

    Raises DataError naming the row unless `drop`; also where nothing would be left.
    """
    zero = is_zero(vectors.values)
    if not zero.any():
        return Named(vectors, ids)
    count = int(zero.sum())
    if not drop:
        row = int(np.argmax(zero))
        reason = f"a zero vector, one of {count} (leave them out with --drop-zero)"
        raise DataError(vectors.file, reason, row=row + 1, value=ids.values[row])
    if zero.all():
        raise DataError(vectors.file, "every vector is zero")
    return Named(replace(vectors, values=vectors.values[~zero]), ids.keep(~zero), count)


def check_name(name: str) -> None:
    """Raise InputError for a model name that the bundle cannot hold."""
    if name in RESERVED_NAMES:
        raise InputError(f"--name {name}: the name is taken; choose another")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--name {name}: letters, digits, '-' and '_', at most 64, beginning with one of the first two"
        )


def _solved_by(model: TrainedModel) -> str:
    if model.tower is not None:
        return "the tower"
    return "as ALS solves it" if "fold_in" in model.parameters else "mean of the history's vectors"


def _popular(dataset: Dataset, order: npt.NDArray[np.int32], told_by: str) -> TrainedModel:
    if len(dataset):
        return popularity.train(dataset, popularity.Config())
    return popular_in_order(dataset, order, told_by)


def _dropped(items: Named, users: Named | None) -> dict[str, int]:
    counts = {"zero_item_vector": items.dropped, "zero_user_vector": users.dropped if users else 0}
    return {reason: count for reason, count in counts.items() if count}
