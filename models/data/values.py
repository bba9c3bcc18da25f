"""Checked conversion of raw columns: what doesn't fit is a DataError naming file, row, column, value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from service.errors import DataError

FLOAT32_MAX = float(np.finfo(np.float32).max)
_UNIT_LIMITS = (1e11, 1e14, 1e17)
"""Unix times of 1973..5138 fall between these as seconds, milliseconds, microseconds, nanoseconds."""
_ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M%#z",
)
_ISO_NAIVE_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
)


@dataclass(frozen=True, slots=True)
class Place:
    """A run of rows of one column of one file. `offset`: rows of the file before it.

    `rows`: int64 (n,), places of the run's rows after `offset` where some were left out; None where none
    were.
    """

    file: Path
    column: str
    offset: int = 0
    rows: npt.NDArray[np.int64] | None = None

    def fault(self, values: pl.Series, bad: pl.Series, reason: str) -> DataError:
        """Build the error for the first bad value."""
        at = bad.arg_max() or 0
        row = self.offset + 1 + (at if self.rows is None else int(self.rows[at]))
        return DataError(self.file, reason, row=row, column=self.column, value=_shown(values[at]))


def _shown(value: Any) -> Any:
    return "nothing" if value is None else value


def numbers(
    values: pl.Series,
    place: Place,
    *,
    least: float = -FLOAT32_MAX,
    most: float = FLOAT32_MAX,
    optional: bool = False,
) -> npt.NDArray[np.float32]:
    """float32 (n,): finite numbers in [least, most]; NaN for a missing one if `optional`.

    Raises DataError on anything else, NaN spelled out included.
    """
    _check_kind(values, place, "a number", numeric=True)
    parsed = values.cast(pl.Float64, strict=False)
    missing = values.is_null()
    if missing.any() and not optional:
        raise place.fault(values, missing, "missing number")
    if (bad := parsed.is_null() & ~missing).any():
        raise place.fault(values, bad, "not a number")
    if (bad := (~parsed.is_finite()).fill_null(value=False)).any():
        raise place.fault(values, bad, "not a finite number")
    if (bad := ((parsed < least) | (parsed > most)).fill_null(value=False)).any():
        what = (
            "must not be negative"
            if least == 0 and most == FLOAT32_MAX
            else f"must be in {least:g}..{most:g}"
        )
        raise place.fault(values, bad, what)
    return parsed.cast(pl.Float32).fill_null(float("nan")).to_numpy()


def positions(values: pl.Series, place: Place) -> npt.NDArray[np.int64]:
    """int64 (n,): whole numbers from 0. Raises DataError on anything else."""
    _check_kind(values, place, "a whole number", numeric=True)
    parsed = values.cast(pl.Int64, strict=False)
    if values.dtype.is_float():
        parsed = parsed.set(parsed.cast(pl.Float64) != values, None)
    if (bad := parsed.is_null() | (parsed < 0).fill_null(value=False)).any():
        raise place.fault(values, bad, "not a whole number from 0")
    return parsed.to_numpy()


class TimeColumn:
    """Times as they arrive, run by run; `finish` gives milliseconds since 1970 UTC.

    A column is either unix numbers or ISO 8601 text, as its first value says; text without an offset is UTC.
    The unit of numbers (s, ms, us, ns) is told by their size, one for the whole column.
    """

    def __init__(self, *, only_iso: bool = False) -> None:
        self._kind: Literal["unix", "iso"] | None = "iso" if only_iso else None
        self._runs: list[npt.NDArray[Any]] = []
        self._places: list[Place] = []

    def add(self, values: pl.Series, place: Place) -> None:
        """Take the next run of rows. Raises DataError on a missing or unparsable time."""
        if (missing := values.is_null()).any():
            raise place.fault(values, missing, "missing time")
        if not len(values):
            return
        if isinstance(values.dtype, (pl.Date, pl.Datetime)):
            self._kind = "iso"
            self._runs.append(values.cast(pl.Datetime("ms")).dt.epoch("ms").to_numpy())
            return
        if self._kind is None:
            self._kind = "unix" if values[:1].cast(pl.Float64, strict=False).null_count() == 0 else "iso"
        self._runs.append(_unix(values, place) if self._kind == "unix" else _iso(values, place))
        self._places.append(place)

    def finish(self) -> npt.NDArray[np.int64]:
        """int64 (n,): milliseconds. Raises DataError where one column mixes units."""
        if not self._runs:
            return np.empty(0, np.int64)
        if self._kind == "iso":
            return np.concatenate(self._runs).astype(np.int64)
        unit = max(_unit(run).max() for run in self._runs)
        return np.concatenate(
            [_in_milliseconds(run, unit, place) for run, place in zip(self._runs, self._places, strict=True)]
        )


def _unit(run: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.digitize(np.abs(run.astype(np.float64)), _UNIT_LIMITS).astype(np.int64)


def _in_milliseconds(run: npt.NDArray[Any], unit: int, place: Place) -> npt.NDArray[np.int64]:
    differs = _unit(run) != unit
    if unit and differs.any():
        raise place.fault(pl.Series(run), pl.Series(differs), "unix times in different units in one column")
    if unit == 0:
        return np.round(run * 1000).astype(np.int64)
    milliseconds: npt.NDArray[np.int64] = np.floor_divide(run, 1000 ** (unit - 1)).astype(np.int64)
    return milliseconds


def _unix(values: pl.Series, place: Place) -> npt.NDArray[Any]:
    _check_kind(values, place, "a time", numeric=True)
    whole = values.cast(pl.Int64, strict=False)
    if not values.dtype.is_float() and whole.null_count() == 0:
        return whole.to_numpy()
    parsed = values.cast(pl.Float64, strict=False)
    if (bad := parsed.is_null() | (~parsed.is_finite()).fill_null(value=False)).any():
        raise place.fault(values, bad, "not a unix time")
    if (bad := parsed.abs() >= 2.0**63).any():
        raise place.fault(values, bad, "not a unix time")
    return parsed.to_numpy()


def _iso(values: pl.Series, place: Place) -> npt.NDArray[np.int64]:
    _check_kind(values, place, "an ISO 8601 time", numeric=False)
    # Few distinct days and many events: parse each text once.
    distinct = values.unique()
    text = distinct.str.replace("T", " ", literal=True).str.replace("Z$", "+00:00")
    parsed = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms"))
    for fmt in _ISO_NAIVE_FORMATS:
        parsed = parsed.zip_with(
            parsed.is_not_null(), text.str.to_datetime(fmt, time_unit="ms", strict=False)
        )
    for fmt in _ISO_FORMATS:
        aware = text.str.to_datetime(fmt, time_unit="ms", time_zone="UTC", strict=False)
        parsed = parsed.zip_with(parsed.is_not_null(), aware.dt.replace_time_zone(None))
    if parsed.null_count():
        bad = values.is_in(distinct.filter(parsed.is_null()).implode())
        raise place.fault(values, bad, "not an ISO 8601 date or time")
    return values.replace_strict(distinct, parsed.dt.epoch("ms"), return_dtype=pl.Int64).to_numpy()


def _check_kind(values: pl.Series, place: Place, wanted: str, *, numeric: bool) -> None:
    if values.dtype in (pl.Utf8, pl.Null) or (numeric and values.dtype.is_numeric()):
        return
    raise DataError(place.file, f"the column holds {values.dtype}, not {wanted}", column=place.column)
