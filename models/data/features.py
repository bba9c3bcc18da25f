"""Feature tables: one row an id; columns become numeric, one category, or lists of categories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.identities import IdColumn
from models.data.tables import column_names, naming, scan_table
from models.data.values import Place
from service.errors import DataError

PROSE = frozenset({"title", "title_orig", "name", "description", "overview", "plot", "summary"})
"""Columns that people read: never split, never turned into numbers."""
COMMA_LISTS = frozenset(
    {"genres", "countries", "studios", "directors", "actors", "keywords", "imdb_genres", "writer"}
)
"""Columns that list values with `, `, as KION does."""
_CANONICAL_NUMBER = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?$"


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of users or of items. `frame`: one row an id of `ids`, without the id column."""

    files: tuple[Path, ...]
    ids: IdColumn
    frame: pl.DataFrame

    def in_order(self, rows: npt.NDArray[np.int32], n_ids: int) -> pl.DataFrame:
        """Frame with `n_ids` rows, the i-th being that of id row i, nulls for ids the table lacks."""
        place_of = np.full(n_ids, -1, np.int64)
        place_of[rows] = np.arange(len(rows))
        places = pl.Series(place_of)
        return self.frame.select(pl.all().gather(places.set(places < 0, None)))


def read_features(path: Path, id_column: str) -> FeatureTable:
    """Read one feature table. Raises DataError on a missing id column, a missing or a repeated id."""
    lazy = scan_table(path)
    if id_column not in (found := column_names(lazy, path)):
        raise DataError(path, f"no column {id_column!r}; the columns are {', '.join(found)}")
    with naming(path):
        frame = lazy.collect()
    return features(path, frame, id_column)


def features(path: Path, frame: pl.DataFrame, id_column: str, *, split: bool = True) -> FeatureTable:
    """Check the ids of a table and settle the kinds of its columns; `split` text that lists values.

    Raises DataError on a missing or a repeated id.
    """
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    place = Place(path, id_column, rows=np.flatnonzero(~blank.to_numpy()))
    frame = frame.filter(~blank)
    values = frame[id_column]
    ids = IdColumn()
    ids.add(values, place)
    if (repeated := ~values.is_first_distinct()).any():
        raise place.fault(values, repeated, "the id occurs twice")
    columns = [settle(column, split=split) for column in frame.drop(id_column)]
    return FeatureTable((path,), ids, pl.DataFrame(columns))


def join_features(tables: list[FeatureTable]) -> FeatureTable:
    """Join tables of the same ids side by side; of two columns of one name the first table's stays."""
    first, *others = tables
    ids = first.ids.finish()
    joined = first.frame.with_columns(ids.cast(pl.Utf8).alias("__id"))
    for other in others:
        new = [name for name in other.frame.columns if name not in joined.columns]
        right = other.frame.select(new).with_columns(other.ids.finish().cast(pl.Utf8).alias("__id"))
        joined = joined.join(right, on="__id", how="full", coalesce=True, maintain_order="left_right")
    all_ids = IdColumn()
    all_ids.add(joined["__id"], Place(first.files[0], "id"))
    return FeatureTable(tuple(f for table in tables for f in table.files), all_ids, joined.drop("__id"))


def settle(column: pl.Series, *, split: bool = True) -> pl.Series:
    """Decide a column's kind: lists stay, numbers stay, text becomes List(Utf8), a number or stays Utf8."""
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.Utf8))
    if column.dtype.is_numeric():
        return column
    column = column.cast(pl.Utf8)
    known = column.drop_nulls()
    if column.name in PROSE or not len(known):
        return column
    if split and (listed := _listed(column, known)) is not None:
        return listed
    if known.str.contains(_CANONICAL_NUMBER).all():
        fractions = known.str.contains(".", literal=True).any()
        return column.cast(pl.Float64 if fractions else pl.Int64)
    return column


def _listed(column: pl.Series, known: pl.Series) -> pl.Series | None:
    """List(Utf8) of a text column that lists values in one of three ways; None where it doesn't."""
    if known.str.contains("|", literal=True).any():
        return _split(column, "|")
    if known.str.contains(r"^\[.*\]$").all():
        return _split(column.str.slice(1).str.head(-1), ",")
    if column.name in COMMA_LISTS:
        return _split(column, ",")
    return None


def _split(column: pl.Series, separator: str) -> pl.Series:
    parts = pl.element().str.strip_chars(" '\"")
    frame = column.to_frame().select(
        pl.col(column.name).str.split(separator).list.eval(parts.filter(parts.str.len_bytes() > 0))
    )
    return frame.to_series()
