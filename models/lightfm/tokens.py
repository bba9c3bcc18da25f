"""Feature tables as LightFM reads them: a row's identity and the values it has, in CSR."""

from __future__ import annotations

import numpy as np
import polars as pl
import scipy.sparse as sp

MAX_VALUES = 1_000
"""A column of more distinct values describes next to nobody twice."""
BINS = 10


def token_matrix(table: pl.DataFrame | None, n_rows: int) -> sp.csr_matrix:
    """Each row's own token and those of its values: float32 CSR (n_rows, n_rows + n_values), rows summing to 1.

    Numbers of many values are cut at their quantiles into BINS; a missing value has no token; a column of more than
    MAX_VALUES values is left out.
    """
    parts = [sp.identity(n_rows, np.float32, format="csr")]
    for name in [] if table is None else sorted(table.columns):
        assert table is not None  # else there is no name
        values = _values(table[name])
        if values is not None:
            parts.append(values)
    matrix = sp.hstack(parts, format="csr", dtype=np.float32)
    counts = np.diff(matrix.indptr)
    matrix.data /= np.repeat(counts, counts).astype(np.float32)
    return matrix


def _values(column: pl.Series) -> sp.csr_matrix | None:
    if column.dtype.is_numeric() and column.drop_nulls().n_unique() > BINS:
        number = column.cast(pl.Float64).fill_nan(None)
        edges = np.unique(np.quantile(number.drop_nulls().to_numpy(), np.arange(1, BINS) / BINS))
        bins = np.searchsorted(edges, number.fill_null(0).to_numpy(), side="right")
        column = pl.select(pl.when(number.is_not_null()).then(pl.Series(bins))).to_series()
    lists = (
        column
        if column.dtype == pl.List(pl.String)
        else column.cast(pl.String).reshape((-1, 1)).arr.to_list()
    )
    exploded = pl.DataFrame({"row": np.arange(len(lists)), "value": lists}).explode("value").drop_nulls()
    exploded = exploded.unique(maintain_order=True)
    found = exploded["value"].unique().sort()
    if not 1 < len(found) <= MAX_VALUES:
        return None
    codes = found.search_sorted(exploded["value"]).to_numpy()
    rows = exploded["row"].to_numpy()
    return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, codes)), shape=(len(lists), len(found)))
