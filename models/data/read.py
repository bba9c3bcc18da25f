"""One door for every kind of data: tells the dialect by file names and columns, then reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.data import botify, kion, movielens, table
from models.data.dataset import Dataset
from models.data.events import ROLES
from service.errors import DataError, InputError

Reader = Callable[[Path, Mapping[str, str], bool], Dataset]


@dataclass(frozen=True, slots=True)
class Dialect:
    """A layout of data. `accepts`: whether a folder or file looks like it; `looks_for`: by what, in words."""

    read: Reader
    accepts: Callable[[Path], bool]
    looks_for: str


DIALECTS: dict[str, Dialect] = {
    "kion": Dialect(kion.read, kion.accepts, kion.LOOKS_FOR),
    "table": Dialect(table.read, table.accepts, table.LOOKS_FOR),
    "movielens": Dialect(movielens.read, movielens.accepts, movielens.LOOKS_FOR),
    "botify": Dialect(botify.read, botify.accepts, botify.LOOKS_FOR),
}
"""In the order they are tried."""


def read_dataset(
    path: Path, *, reader: str = "auto", columns: Mapping[str, str] | None = None, progress: bool = False
) -> Dataset:
    """Read a folder or a file of interactions, with its feature tables if it has them.

    reader: one of DIALECTS, or `auto` to tell by file names and columns. columns: our name (user_id, item_id,
    weight, rating, timestamp, last_watch_dt, pos) -> the file's column. progress: show rows read on stderr.
    Raises InputError on an unknown reader or column role, or where nothing readable is found (naming what was
    looked for); DataError on the first fault in a file, with its row, column and value.
    """
    columns = columns or {}
    if unknown := sorted(set(columns) - set(ROLES)):
        raise InputError(f"--column {unknown[0]}=...: no such name; known are {', '.join(ROLES)}")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if reader != "auto":
        if reader not in DIALECTS:
            raise InputError(f"--reader {reader}: no such reader; known are auto, {', '.join(DIALECTS)}")
        return DIALECTS[reader].read(path, columns, progress)
    if columns:  # whoever names columns has a table of their own
        return table.read(path, columns, progress)
    for dialect in DIALECTS.values():
        if dialect.accepts(path):
            return dialect.read(path, columns, progress)
    looked_for = "".join(f"\n  {name}: {dialect.looks_for}" for name, dialect in DIALECTS.items())
    if path.is_file():
        return table.read(path, columns, progress)  # its error names the missing column
    raise DataError(path, f"no data set found; looked for{looked_for}")
