"""Reads lists of users and held-out pairs, with ids of the kind the bundle holds; writes files whole or not at all."""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.identities import CANONICAL_INTEGER, END_OF_INTEGERS
from models.data.tables import column_names, is_parquet, naming, open_bytes, scan_table
from models.data.values import Place
from service.domain import IdKind, ItemId, UserId
from service.errors import DataError, InputError


def read_users(path: Path, kind: IdKind) -> list[UserId]:
    """Users of a file, in its order, each once: one id a line, or a table with a `user_id` column.

    Plain or gzipped text, or Parquet. Raises InputError for no such file; DataError naming file, row, column
    and value for an id that is not of the bundle's kind, and for a file without any.
    """
    return _listed(path, "user_id", kind)


def read_items(path: Path, kind: IdKind) -> list[ItemId]:
    """Items of a file, as `read_users` reads users."""
    return _listed(path, "item_id", kind)


def _listed(path: Path, column: str, kind: IdKind) -> list[Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    header = None if is_parquet(path) or column in _first_fields(path) else [column]
    if header is not None and len(_first_fields(path)) > 1:
        raise DataError(path, f"no column {column!r}; the columns are {', '.join(_first_fields(path))}")
    values = _column(scan_table(path, header=header), path, column)
    if header is not None:
        values = _without_end_blanks(values)
    if not len(values):
        raise DataError(path, f"holds no {column.removesuffix('_id')} ids")
    distinct: list[Any] = list(dict.fromkeys(identifiers(values, Place(path, column), kind).tolist()))
    return distinct


def read_pairs(path: Path, user_kind: IdKind, item_kind: IdKind) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """User and item ids of a table's `user_id` and `item_id` columns, row by row; other columns are ignored.

    CSV or TSV, plain or gzipped, or Parquet. Raises InputError for no such file; DataError naming file, row,
    column and value for an id that is not of the bundle's kind, and for a table without rows.
    """
    table = scan_table(path)
    users, items = (
        identifiers(_column(table, path, name), Place(path, name), kind)
        for name, kind in (("user_id", user_kind), ("item_id", item_kind))
    )
    if not len(users):
        raise DataError(path, "holds no rows")
    return users, items


def identifiers(values: pl.Series, place: Place, kind: IdKind) -> npt.NDArray[Any]:
    """Ids of one kind: int64 (n,), or str (n,). Raises DataError for the first value that isn't one."""
    missing = values.is_null()
    if values.dtype == pl.Utf8:
        missing = missing | (values == "").fill_null(value=False)
    elif not (values.dtype.is_integer() or values.dtype == pl.Null):
        raise DataError(
            place.file,
            f"ids must be whole numbers or text, the column holds {values.dtype}",
            column=place.column,
        )
    if missing.any():
        raise place.fault(values, missing, "missing id")
    if kind == "str":
        return values.cast(pl.Utf8).to_numpy().astype(np.str_)
    if values.dtype == pl.Utf8:
        bad = ~values.str.contains(CANONICAL_INTEGER)
    else:
        bad = (values < 0) | (values >= END_OF_INTEGERS)
    if bad.any():
        raise place.fault(
            values, bad, "not an integer id; the bundle's ids are whole numbers from 0 to 10**18 - 1"
        )
    return values.cast(pl.Int64).to_numpy()


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file, gzipped where its name ends in `.gz`: complete, or not there. Raises InputError if it can't be."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path} can't be written: {error.strerror}") from error


def at_least_one(text: str) -> int:
    """Parse a flag's whole number from 1; the ValueError of anything else becomes argparse's message."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _column(table: pl.LazyFrame, path: Path, name: str) -> pl.Series:
    found = column_names(table, path)
    if name not in found:
        raise DataError(path, f"no column {name!r}; the columns are {', '.join(found)}")
    with naming(path):
        return table.select(name).collect()[name]


def _first_fields(path: Path) -> list[str]:
    with naming(path), open_bytes(path) as file:
        line = file.readline(1 << 20).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if not line:
        raise (
            DataError(path, "the file is empty")
            if path.stat().st_size == 0
            else DataError(path, "missing id", row=1)
        )
    return [field.strip('"') for field in line.split("\t" if "\t" in line and "," not in line else ",")]


def _without_end_blanks(values: pl.Series) -> pl.Series:
    filled = values.is_not_null().arg_true()
    return values[: (filled[-1] + 1 if len(filled) else 0)]
