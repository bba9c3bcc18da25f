"""Where embeddings start: at the singular vectors of which item is read after which."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from models.dssm.windows import Histories

Vectors = npt.NDArray[np.float32]

_REACH = 3
_SHRINKAGE = 10.0
_LEAST_ITEMS = 8
_FROM_NOISE = 0.01


def spectral_start(histories: Histories, n_items: int, dim: int, *, seed: int) -> tuple[Vectors, Vectors]:
    """Vectors of items as what was read and as what comes next: float32 (n_items, dim) each, mean squared norm 1.

    Their products approximate counts of the pairs up to `_REACH` places apart, the d-th counting 1 / d, over the
    roots of both totals; without order, pairs count in both directions. Noise fills what the counts leave open.
    """
    generator = np.random.default_rng(seed)
    scale = _FROM_NOISE / np.sqrt(dim)
    before, after = (generator.normal(0, scale, (n_items, dim)).astype(np.float32) for _ in range(2))
    rank = min(dim, n_items - 1)
    counts = _followers(histories, n_items)
    if n_items >= _LEAST_ITEMS and counts.nnz:
        left, values, right = svds(_scaled(counts), rank, v0=generator.random(n_items))
        # The sign of a pair of singular vectors is arbitrary: fixed, so that equal data starts equal.
        signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(rank)]) * np.sqrt(np.maximum(values, 0.0))
        before[:, :rank] += (left * signs).astype(np.float32)
        after[:, :rank] += (right.T * signs).astype(np.float32)
    return _unit_on_average(before), _unit_on_average(after)


def _followers(histories: Histories, n_items: int) -> sp.csr_matrix:
    owners = np.repeat(np.arange(len(histories.indptr) - 1), histories.lengths())
    counts = sp.csr_matrix((n_items, n_items), dtype=np.float32)
    for gap in range(1, _REACH + 1):
        together = owners[gap:] == owners[:-gap]
        pairs = (histories.items[:-gap][together], histories.items[gap:][together])
        weights = np.full(len(pairs[0]), 1.0 / gap, np.float32)
        counts = counts + sp.csr_matrix((weights, pairs), shape=(n_items, n_items))
    return counts if histories.ordered else (counts + counts.T).tocsr()


def _scaled(counts: sp.csr_matrix) -> sp.csr_matrix:
    left, right = (
        sp.diags((1.0 / np.sqrt(np.asarray(counts.sum(axis=axis)).ravel() + _SHRINKAGE)).astype(np.float32))
        for axis in (1, 0)
    )
    return (left @ counts @ right).tocsr()


def _unit_on_average(vectors: Vectors) -> Vectors:
    mean = np.sqrt(np.mean(np.einsum("nd,nd->n", vectors, vectors)))
    return (vectors / mean).astype(np.float32)
