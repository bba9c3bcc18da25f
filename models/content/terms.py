"""The terms of an item: values of its attributes and the words in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import polars as pl
import scipy.sparse as sp

from models.data.features import PROSE

Terms = Literal["values", "words", "both"]
MAX_NUMBERS = 200
"""A numeric column of more distinct values measures; of fewer it names, as a year or an age rating does."""
_WORD = re.compile(r"[^\W_]+")
_ENDINGS = (
    "ations",
    "ation",
    "ings",
    "ing",
    "ies",
    "ers",
    "er",
    "ics",
    "ic",
    "ed",
    "es",
    "s",
    "al",
    "ly",
    "y",
)
_LEAST_STEM = 4


def term_matrix(items: pl.DataFrame, terms: Terms) -> sp.csr_matrix:
    """Which item has which term: float32 CSR (n_items, n_terms) of ones, only terms that two items share.

    `values`: each value of a text or list column, and of a numeric one with few values, by column. `words`: the words
    of all text, less common English endings, whatever the column. Columns that people read (titles, plots) have
    no values but words.
    """
    codes: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    cache: dict[tuple[str, bool], list[str]] = {}
    for name in items.columns:
        column = items[name]
        prose = name in PROSE
        numeric = column.dtype.is_numeric()
        if numeric and (terms == "words" or column.drop_nulls().n_unique() > MAX_NUMBERS):
            continue
        for row, value in _values(column):
            key = f"{name}={value}", prose
            found = cache.get(key)
            if found is None:
                found = [] if prose or terms == "words" else [f"{name}={value}"]
                if not numeric and (prose or terms != "values"):
                    found += words(value)
                cache[key] = found
            for term in found:
                rows.append(row)
                columns.append(codes.setdefault(term, len(codes)))
    matrix = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(items), len(codes)))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    shared = np.flatnonzero(np.bincount(matrix.indices, minlength=len(codes)) > 1)
    return matrix[:, shared]


def words(text: str) -> list[str]:
    """Words of a text in lower case, each without one common English ending where enough is left of it."""
    return [_stem(word) for word in _WORD.findall(text.lower())]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
            return word[: -len(ending)]
    return word


def _values(column: pl.Series) -> Iterator[tuple[int, str]]:
    """Row and value, as text, of everything that is known."""
    for row, entry in enumerate(column.to_list()):
        if entry is None:
            continue
        several: list[Any] = entry if isinstance(entry, list) else [entry]
        for value in several:
            if value is not None and str(value):
                yield row, str(value)
