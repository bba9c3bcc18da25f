"""Lists of ids that go with rows of vectors: .txt, .csv, .tsv, .json, .npy, Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from models.data.identities import IdColumn
from models.data.tables import column_names, is_parquet, naming, open_bytes, scan_table
from models.data.values import Place
from models.importing.vectors import NPY_MAGIC, Owner, VectorTable
from service.errors import DataError, InputError


@dataclass(frozen=True, slots=True)
class IdList:
    """Unique ids in the order of the vectors' rows."""

    file: Path
    column: IdColumn
    values: pl.Series

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, file: Path, values: pl.Series, column: str) -> IdList:
        """Check ids. Raises DataError naming the row of a missing or a repeated one."""
        place = Place(file, column)
        ids = IdColumn()
        ids.add(values, place)
        if (repeated := ~values.is_first_distinct()).any():
            raise place.fault(values, repeated, "the id occurs twice")
        return cls(file, ids, values)

    def keep(self, kept: Any) -> IdList:
        """Leave some out. kept: bool (n,)."""
        values = self.values.filter(pl.Series(kept))
        return IdList.of(self.file, values, self.values.name)


def ids_of(vectors: VectorTable, owner: Owner, ids_file: Path | None, *, column: str | None = None) -> IdList:
    """Ids of a vector table: from a list, else from its own id column, else row numbers from 0.

    Raises DataError where the list is not as long as the table.
    """
    if ids_file is not None:
        ids = read_ids(ids_file, owner, column=column)
        if len(ids) != len(vectors.values):
            reason = f"{len(ids)} ids, but {vectors.file} holds {len(vectors.values)} vectors"
            if len(ids) + 1 == len(vectors.values) and ids_file.suffix not in (".txt", ".npy", ".json"):
                reason += " (the first line was taken for the header; a list without one ends in .txt)"
            raise DataError(ids_file, reason)
        return ids
    if vectors.ids is not None:
        return IdList.of(vectors.file, vectors.ids, vectors.ids.name)
    return IdList.of(vectors.file, pl.Series("row number", np.arange(len(vectors.values))), "row number")


def read_ids(path: Path, owner: Owner, *, column: str | None = None) -> IdList:
    """Read a list of ids. Raises InputError where there is no such file; DataError with the row of a bad id."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        begins = file.read(6)
    name = path.name.removesuffix(".gz")
    if begins == NPY_MAGIC:
        values = _npy(path)
    elif is_parquet(path) or not name.endswith((".txt", ".json")):
        values = _table(path, owner, column)
    elif name.endswith(".json"):
        values = _json(path)
    else:
        values = _lines(path)
    if values.is_empty():
        raise DataError(path, "no ids in it")
    return IdList.of(path, values, values.name)


def _npy(path: Path) -> pl.Series:
    try:
        raw = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(path, f"not a plain numpy array: {error}") from error
    if raw.ndim != 1 or raw.dtype.kind not in "iuU":
        raise DataError(
            path, f"ids must be one row of whole numbers or text, not {raw.dtype} {list(raw.shape)}"
        )
    return pl.Series("ids", raw.tolist() if raw.dtype.kind == "U" else raw)


def _json(path: Path) -> pl.Series:
    with naming(path), open_bytes(path) as file:
        text = file.read()
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(path, f"not JSON: {error}") from error
    if not isinstance(document, list):
        raise DataError(path, "not a list of ids")
    kind = type(document[0]) if document else str
    for row, value in enumerate(document, start=1):
        if type(value) is not kind or kind not in (int, str):
            raise DataError(path, "ids must be all whole numbers or all text", row=row, value=value)
    return pl.Series("ids", document)


def _lines(path: Path) -> pl.Series:
    with naming(path), open_bytes(path) as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"the file is not UTF-8 text: {error.reason}") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return pl.Series("ids", [line.removesuffix("\r") for line in lines], dtype=pl.Utf8)


def _table(path: Path, owner: Owner, column: str | None) -> pl.Series:
    lazy = scan_table(path)
    found = column_names(lazy, path)
    wanted = [column] if column is not None else [f"{owner}_id", owner, "id"]
    chosen = next((name for name in wanted if name in found), None)
    if chosen is None and column is None and len(found) == 1:
        chosen = found[0]
    if chosen is None:
        reason = f"no column {' or '.join(map(repr, wanted))}; the columns are {', '.join(found)}"
        raise DataError(path, f"{reason} (choose with --{owner}-id-column)")
    with naming(path):
        return lazy.select(chosen).collect().to_series()
