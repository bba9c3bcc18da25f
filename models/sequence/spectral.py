"""A start for item embeddings: singular vectors of which items are read near each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from models.sequence.histories import Histories

_REACH = 5
_HALF_LIFE = 2.0
_SHRINKAGE = 10.0


def spectral_start(histories: Histories, dim: int, *, seed: int) -> npt.NDArray[np.float32]:
    """float32 (n_items, dim): items read near each other point alike; mean squared norm 1.

    The matrix is that of pairs up to `_REACH` places apart, the d-th counting 2^(-(d - 1) / _HALF_LIFE), both ways,
    divided by the roots of both totals. Noise stands in for dimensions that it doesn't have.
    """
    n = len(histories.item_rows)
    generator = np.random.default_rng(seed)
    vectors = generator.normal(0, 1e-2 / np.sqrt(dim), (n, dim)).astype(np.float32)
    rank = min(dim, n - 1)
    matrix = nearness(histories)
    if rank < 1 or matrix.nnz == 0:
        return vectors * np.float32(100.0)
    left, values, _ = svds(matrix, rank, v0=generator.random(n), return_singular_vectors="u")
    # A singular vector's sign is arbitrary: fixed, so that the same data gives the same start.
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(rank)])
    vectors[:, :rank] += (left * signs * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
    scale = np.sqrt(np.mean(np.einsum("nd,nd->n", vectors, vectors)))
    return (vectors / scale).astype(np.float32)


def nearness(histories: Histories) -> sp.csr_matrix:
    """float32 (n_items, n_items), symmetric, of at most 1 a cell: how much two items are read near each other."""
    n = len(histories.item_rows)
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    counts = sp.csr_matrix((n, n), dtype=np.float32)
    for gap in range(1, _REACH + 1):
        together = owner[gap:] == owner[:-gap]
        pairs = (histories.items[:-gap][together], histories.items[gap:][together])
        weights = np.full(len(pairs[0]), 2.0 ** (-(gap - 1) / _HALF_LIFE), np.float32)
        counts = counts + sp.csr_matrix((weights, pairs), shape=(n, n))
    counts = (counts + counts.T).tocsr()
    totals = 1.0 / np.sqrt(np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel() + _SHRINKAGE)
    scale = sp.diags(totals.astype(np.float32))
    return (scale @ counts @ scale).tocsr()
