"""Ids as they come in files -> sorted unique ids and rows of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.values import Place
from service.bundle.ids import Ids, IntIds, StrIds
from service.errors import DataError

CANONICAL_INTEGER = r"^(0|[1-9][0-9]{0,17})$"
"""What has exactly one spelling as an integer id: digits alone, no leading zero, below 10**18."""
END_OF_INTEGERS = 10**18


class IdColumn:
    """One id column, run by run. Held as int64 while every value is a canonical integer, else as text."""

    def __init__(self) -> None:
        self._runs: list[pl.Series] = []
        self.integers = True

    def add(self, values: pl.Series, place: Place) -> None:
        """Take the next run. Raises DataError on a missing or empty id, or a column that can't hold ids."""
        if values.dtype == pl.Categorical or isinstance(values.dtype, pl.Enum):
            values = values.cast(pl.Utf8)
        if values.dtype != pl.Utf8 and not values.dtype.is_integer() and values.dtype != pl.Null:
            raise DataError(
                place.file,
                f"ids must be whole numbers or text, the column holds {values.dtype}",
                column=place.column,
            )
        if (missing := values.is_null()).any():
            raise place.fault(values, missing, "missing id")
        if values.dtype == pl.Utf8 and (empty := values == "").any():
            raise place.fault(values, empty, "missing id")
        if not self.integers:
            self._runs.append(values.cast(pl.Utf8))
        elif _all_canonical(values):
            self._runs.append(values.cast(pl.Int64))
        else:
            # Canonical integers turn back into the very text they were read from.
            self.integers = False
            self._runs = [run.cast(pl.Utf8) for run in [*self._runs, values]]

    def finish(self) -> pl.Series:
        """All values, Int64 or Utf8."""
        return pl.concat(self._runs) if self._runs else pl.Series([], dtype=pl.Int64)


def _all_canonical(values: pl.Series) -> bool:
    if values.dtype.is_integer():
        wide = values.cast(pl.Int64, strict=False)
        return bool(((wide >= 0) & (wide < END_OF_INTEGERS)).fill_null(value=False).all())
    return bool(values.str.contains(CANONICAL_INTEGER).all())


def number(columns: Sequence[IdColumn]) -> tuple[Ids, list[npt.NDArray[np.int32]]]:
    """Sort the union of id columns: its ids (int64 if all columns are), and int32 rows of each column."""
    taken = [column.finish() for column in columns]
    if all(column.integers for column in columns):
        return _number_integers([values.to_numpy() for values in taken])
    return _number_text([values.cast(pl.Utf8) for values in taken])


def _number_integers(columns: list[npt.NDArray[np.int64]]) -> tuple[Ids, list[npt.NDArray[np.int32]]]:
    values = np.unique(np.concatenate([np.unique(column) for column in columns]))
    if len(values) and values[-1] < 8 * len(values) + (
        1 << 20
    ):  # a table beats bisection where ids are dense
        row_of = np.zeros(int(values[-1]) + 1, np.int32)
        row_of[values] = np.arange(len(values), dtype=np.int32)
        return IntIds(values), [row_of[column] for column in columns]
    return IntIds(values), [np.searchsorted(values, column).astype(np.int32) for column in columns]


def _number_text(columns: list[pl.Series]) -> tuple[Ids, list[npt.NDArray[np.int32]]]:
    values = pl.concat([column.unique() for column in columns]).unique().sort()
    table = pl.DataFrame({"id": values, "row": np.arange(len(values), dtype=np.int32)})
    rows = [
        pl.DataFrame({"id": column}).join(table, on="id", how="left", maintain_order="left")["row"].to_numpy()
        for column in columns
    ]
    return StrIds.of(values.to_list()), rows
