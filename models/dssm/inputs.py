"""What the towers read of a data set besides ids and histories: features of users, features and words of items."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from models.data.features import PROSE

FEW_NUMBERS = 64
"""A whole-number column with no more distinct values is a category; one with more is a quantity."""
MAX_VALUES = 64
"""Values of a category of users that get a feature of their own: the most frequent. The others have none."""
MAX_ITEM_VALUES = 4_096
"""The same for items, whose features are kept sparse."""
LEAST_WITH_VALUE = 5
"""A value that fewer share says nothing of others."""
_WORD = re.compile(r"\w+")
_RAREST_WORD = 2

Column = tuple[str, npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""A feature's name; rows, columns (of this block) and values of what is not zero."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of users or items, by row. names: one a column. values: float32 CSR (n, len(names)).

    A row of zeros is someone of whom nothing is known. Categories are 1 or 0, quantities their rank among all, from
    -1 to 1, 0 where unknown.
    """

    names: tuple[str, ...]
    values: sp.csr_matrix


def user_features(table: pl.DataFrame | None, n_users: int) -> Features:
    """Make features of the users' table; none without one. Prose is left out."""
    return _features(table, n_users, MAX_VALUES)


def item_features(table: pl.DataFrame | None, n_items: int, text_buckets: int) -> Features:
    """Make features of the items' table: categories, quantities, and hashed TF-IDF words of its prose.

    Each group of columns has unit length in every row that has any of it, so that a long text weighs no more than one
    category. Words fall into `text_buckets` columns by CRC-32, a collision being two words that count as one.
    """
    plain = _features(table, n_items, MAX_ITEM_VALUES, unit=True)
    prose = [column for column in ([] if table is None else table.columns) if column in PROSE]
    if table is None or not prose or text_buckets < 1:
        return plain
    words = _words(table.select(prose), text_buckets)
    names = (*plain.names, *(f"word {bucket}" for bucket in range(text_buckets)))
    return Features(names, sp.hstack([plain.values, words], format="csr", dtype=np.float32))


def _features(table: pl.DataFrame | None, n: int, most: int, *, unit: bool = False) -> Features:
    names: list[str] = []
    blocks: list[sp.csr_matrix] = []
    for column in [] if table is None else table.get_columns():
        if column.name in PROSE:
            continue
        own, block = _block(column, most)
        if own:
            names += own
            blocks.append(_unit(block) if unit else block)
    values = sp.hstack(blocks, format="csr") if blocks else sp.csr_matrix((n, 0), dtype=np.float32)
    return Features(tuple(names), values)


def _block(column: pl.Series, most: int) -> tuple[list[str], sp.csr_matrix]:
    numeric = column.dtype.is_numeric()
    if numeric and (column.dtype.is_float() or column.n_unique() > FEW_NUMBERS):
        return [column.name], _ranks(column)
    lists = column.to_list() if column.dtype == pl.List(pl.Utf8) else [[value] for value in column.to_list()]
    counts = Counter(str(value) for values in lists for value in set(values or ()) if value is not None)
    frequent = sorted((-count, value) for value, count in counts.items() if count >= LEAST_WITH_VALUE)
    place = {value: number for number, (_, value) in enumerate(frequent[:most])}
    entries = [
        (row, place[str(value)])
        for row, values in enumerate(lists)
        for value in set(values or ())
        if value is not None and str(value) in place
    ]
    rows, columns = np.array(entries, np.int64).reshape(-1, 2).T
    ones = np.ones(len(rows), np.float32)
    return [f"{column.name}={value}" for value in place], sp.csr_matrix(
        (ones, (rows, columns)), shape=(len(column), len(place))
    )


def _ranks(column: pl.Series) -> sp.csr_matrix:
    values = column.cast(pl.Float64).to_numpy().astype(np.float64)
    known = np.flatnonzero(np.isfinite(values))
    distinct, places = np.unique(values[known], return_inverse=True)
    ranks = 2.0 * places / max(len(distinct) - 1, 1) - 1.0
    zeros = np.zeros(len(known), np.int64)
    return sp.csr_matrix((ranks.astype(np.float32), (known, zeros)), shape=(len(values), 1))


def _words(prose: pl.DataFrame, buckets: int) -> sp.csr_matrix:
    texts = [" ".join(str(part) for part in row if part is not None).lower() for row in prose.iter_rows()]
    bags = [Counter(zlib.crc32(word.encode()) % buckets for word in _WORD.findall(text)) for text in texts]
    entries = [(row, bucket, count) for row, bag in enumerate(bags) for bucket, count in sorted(bag.items())]
    rows, columns, counts = np.array(entries, np.int64).reshape(-1, 3).T
    documents = np.bincount(columns, minlength=buckets)
    weights = np.log1p(counts) * np.log(len(texts) / np.maximum(documents, 1))[columns]
    weights[documents[columns] < _RAREST_WORD] = 0.0
    matrix = sp.csr_matrix((weights.astype(np.float32), (rows, columns)), shape=(len(texts), buckets))
    matrix.eliminate_zeros()
    return _unit(matrix)


def _unit(matrix: sp.csr_matrix) -> sp.csr_matrix:
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = sp.diags((1.0 / np.where(norms > 0, norms, 1.0)).astype(np.float32))
    return (scale @ matrix).tocsr().astype(np.float32)
