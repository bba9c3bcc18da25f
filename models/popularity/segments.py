"""Segments: users alike by one or two columns of the users' table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.dataset import Dataset
from service.errors import InputError

UNKNOWN = "unknown"
MAX_VALUES = 20
"""A column with more values than this is no segment; a number is cut into bins."""
BINS = 5
MAX_CHOICES = 6

Segments = tuple[npt.NDArray[np.int32], list[str]]
"""int32 (n_users,), 0 for users that no segment describes; names by number, the 0th "all"."""


def segments_of(dataset: Dataset, columns: Sequence[str]) -> Segments:
    """Give each user the number of their segment.

    A missing value counts as "unknown"; a user with nothing known is in segment 0. Names are "column=value"
    joined by ",", numbered in their sorted order. Raises InputError for a column that the users' table
    lacks.
    """
    if not columns:
        return np.zeros(dataset.n_users, np.int32), ["all"]
    labels = np.full(dataset.n_users, "", dtype=object)
    known = np.zeros(dataset.n_users, bool)
    for place, column in enumerate(columns):
        values, has_value = _categories(dataset, column)
        labels = labels + ("," if place else "") + f"{column}=" + values
        known |= has_value
    names = sorted(set(labels[known].tolist()))
    number = {name: i for i, name in enumerate(names, start=1)}
    numbers = np.fromiter(
        (number[label] if is_known else 0 for label, is_known in zip(labels.tolist(), known, strict=True)),
        np.int32,
        count=dataset.n_users,
    )
    return numbers, ["all", *names]


def segment_choices(dataset: Dataset) -> list[tuple[str, ...]]:
    """Columns worth trying: none, age and sex together, then each usable column, then pairs."""
    if dataset.users is None:
        return [()]
    usable = [name for name in dataset.users.columns if _usable(dataset.users[name])]
    sex = [name for name in usable if name.lower() in {"sex", "gender"}]
    age = [name for name in usable if name.lower().startswith("age")]
    first = [(age[0], sex[0])] if age and sex else []
    rest = [pair for pair in combinations(usable, 2) if set(pair) != set(first[0] if first else ())]
    return [(), *first, *((name,) for name in usable), *rest][:MAX_CHOICES]


def _usable(column: pl.Series) -> bool:
    if column.dtype.is_numeric():
        return column.n_unique() > 1
    return column.dtype == pl.String and 1 < column.drop_nulls().n_unique() <= MAX_VALUES


def _categories(dataset: Dataset, name: str) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.bool_]]:
    if dataset.users is None or name not in dataset.users.columns:
        have = [] if dataset.users is None else dataset.users.columns
        raise InputError(
            f"popularity: no column {name!r} to make segments of in the users' table (columns: {have})"
        )
    column = dataset.users[name]
    if column.dtype.is_nested():
        raise InputError(f"popularity: column {name!r} holds lists; segments need one value a user")
    if column.dtype.is_numeric() and column.drop_nulls().n_unique() > MAX_VALUES:
        column = _binned(column)
    known = column.is_not_null().to_numpy()
    values = column.cast(pl.String).fill_null(UNKNOWN).to_numpy().astype(object)
    return values, known


def _binned(column: pl.Series) -> pl.Series:
    """Cut a number at its quantiles; a bin is named by its lower edge."""
    values = column.cast(pl.Float64).fill_nan(None)
    present = values.drop_nulls().to_numpy()
    edges = np.unique(np.quantile(present, np.arange(1, BINS) / BINS))
    names = [f"<{edges[0]:g}", *(f">={edge:g}" for edge in edges)]
    bins = np.searchsorted(edges, values.fill_null(0).to_numpy(), side="right")
    labels = pl.Series([names[i] for i in bins])
    return pl.select(pl.when(values.is_not_null()).then(labels).otherwise(None)).to_series()
