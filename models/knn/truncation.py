"""Keep the strongest entries of each row of an item-to-item matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

_ROWS_AT_ONCE = 512

Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""CSR: indptr int64 (n + 1,), indices int32 (nnz,) ascending in a row, weights float32 (nnz,), none of them
zero."""


def strongest_of_each_row(blocks: Iterable[npt.NDArray[np.float32]], width: int) -> Rows:
    """Keep the `width` entries of largest magnitude in each row; zeros are never kept.

    blocks: float32 (any, n), consecutive rows of the matrix. Among equal magnitudes the lower column wins,
    so the outcome depends on the values alone.
    """
    lengths: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
    indices: list[npt.NDArray[np.int32]] = []
    weights: list[npt.NDArray[np.float32]] = []
    for block in blocks:
        kept = _largest(np.abs(block), width)
        lengths.append(kept.sum(axis=1, dtype=np.int64))
        rows, columns = np.nonzero(kept)
        indices.append(columns.astype(np.int32))
        weights.append(block[rows, columns].astype(np.float32, copy=False))
    indptr = np.cumsum(np.concatenate(lengths))
    if not indices:
        return indptr, np.empty(0, np.int32), np.empty(0, np.float32)
    return indptr, np.concatenate(indices), np.concatenate(weights)


def narrowed(arrays: Mapping[str, npt.NDArray[Any]], width: int) -> dict[str, npt.NDArray[Any]]:
    """Narrow CSR rows (`indptr`, `indices`, `weights` of a square matrix) to their strongest `width` entries."""
    n = len(arrays["indptr"]) - 1
    matrix = sp.csr_matrix((arrays["weights"], arrays["indices"], arrays["indptr"]), shape=(n, n))
    blocks = (matrix[start : start + _ROWS_AT_ONCE].toarray() for start in range(0, n, _ROWS_AT_ONCE))
    indptr, indices, weights = strongest_of_each_row(blocks, width)
    return {"indptr": indptr, "indices": indices, "weights": weights}


def _largest(magnitudes: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.bool_]:
    positive: npt.NDArray[np.bool_] = magnitudes > 0
    n = magnitudes.shape[1]
    if width >= n:
        return positive
    threshold = np.partition(magnitudes, n - width, axis=1)[:, n - width, None]
    above = magnitudes > threshold
    at = (magnitudes == threshold) & positive
    room = width - above.sum(axis=1, keepdims=True)
    crowded = np.flatnonzero(at.sum(axis=1) > room[:, 0])  # the only rows where the order of columns decides
    at[crowded] &= np.cumsum(at[crowded], axis=1, dtype=np.int32) <= room[crowded]
    kept: npt.NDArray[np.bool_] = above | at
    return kept
