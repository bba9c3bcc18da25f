"""Open a table whatever its name says: Parquet, CSV or TSV, plain or gzipped, told apart by content."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl

from service.errors import DataError, InputError

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
_UNSPLIT = "\x01"
"""A separator that no text file holds: makes a line one column."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what polars and the file system say of an unreadable file into a DataError that names it."""
    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise DataError(path, "the file is empty") from error
    except pl.exceptions.PolarsError as error:
        raise ragged_row(path) or DataError(path, str(error).splitlines()[0]) from error
    except (OSError, EOFError) as error:
        raise DataError(path, f"the file can't be read: {error}") from error


def open_bytes(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Open for reading, unzipping if it is gzipped. Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    raw = path.open("rb")
    zipped = raw.read(2) == GZIP_MAGIC
    raw.seek(0)
    if not zipped:
        return raw
    raw.close()
    return gzip.open(path, "rb")


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    with path.open("rb") as file:
        return file.read(4) == PARQUET_MAGIC


def separator_of(path: Path) -> str:
    r"""Separator of a text table, by its first line: a tab where that has tabs and no comma, else a comma."""
    with naming(path), open_bytes(path) as file:
        first = file.readline(1 << 20)
    return "\t" if b"\t" in first and b"," not in first else ","


def scan_table(path: Path, *, header: Sequence[str] | None = None) -> pl.LazyFrame:
    """Open lazily. Columns of a text table are Utf8, empty fields null; those of Parquet are as stored.

    `header` names the columns of a text table that has no header line.
    Raises InputError where there is no such file; DataError where it can't be read as a table.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with naming(path):
        if is_parquet(path):
            return pl.scan_parquet(path, glob=False)
        frame = pl.scan_csv(
            path,
            infer_schema=False,
            separator=separator_of(path),
            glob=False,
            has_header=header is None,
            new_columns=header,
        )
        frame.collect_schema()
        return frame


def scan_lines(path: Path, separator: str, header: Sequence[str]) -> pl.LazyFrame:
    """Open a headerless text table whose separator is longer than one character, such as `::`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with naming(path):
        lines = pl.scan_csv(
            path,
            infer_schema=False,
            separator=_UNSPLIT,
            quote_char=None,
            glob=False,
            has_header=False,
            new_columns=["line"],
        )
        lines.collect_schema()
    fields = pl.col("line").str.splitn(separator, len(header)).struct.rename_fields(list(header))
    return lines.select(fields.alias("line")).unnest("line")


def read_latin(path: Path, separator: str, header: Sequence[str]) -> pl.DataFrame:
    """Read a small headerless Latin-1 table without quotes, as MovieLens writes its titles. All Utf8.

    Raises DataError naming the row that has too many or too few fields.
    """
    rows: list[list[str | None]] = []
    with naming(path), open_bytes(path) as file:
        text = file.read().decode("latin-1")
    for row, line in enumerate(text.splitlines(), start=1):
        if not line:
            continue
        fields = line.split(separator)
        if len(fields) != len(header):
            raise DataError(path, f"expected {len(header)} fields, found {len(fields)}", row=row)
        rows.append([value or None for value in fields])
    return pl.DataFrame(rows, schema=dict.fromkeys(header, pl.Utf8), orient="row")


def column_names(frame: pl.LazyFrame, path: Path) -> list[str]:
    """Names of a table's columns, in order."""
    with naming(path):
        return frame.collect_schema().names()


def has_columns(path: Path, wanted: Iterable[str]) -> bool:
    """Whether the file can be read as a table and has these columns."""
    try:
        return set(wanted) <= set(column_names(scan_table(path), path))
    except DataError:
        return False


def ragged_row(path: Path) -> DataError | None:
    """Find the first row of a text table with more fields than its header, for a message that names it."""
    if is_parquet(path):
        return None
    with open_bytes(path) as file:
        try:
            reader = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""), delimiter=separator_of(path))
            width = len(next(reader, []))
            for row, fields in enumerate(reader, start=1):
                if len(fields) > width:
                    return DataError(path, f"{len(fields)} fields where the header has {width}", row=row)
        except UnicodeDecodeError as error:
            return DataError(path, f"the file is not UTF-8 text: {error.reason}")
        except (csv.Error, OSError, EOFError):
            return None
    return None
