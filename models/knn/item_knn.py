"""Item-kNN: an item's neighbours are the items with the most similar sets of users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.data.windows import in_window
from models.event_weights import EventWeights, pair_matrix, recency_of
from models.knn.truncation import strongest_of_each_row
from models.progress import ticking
from models.trained import TrainedModel
from service.errors import InputError

Weighting = Literal["cosine", "tfidf", "bm25"]

_BLOCK_CELLS = 1 << 24
"""Similarities held at once: 64 MB."""


@dataclass(frozen=True, slots=True)
class Config:
    """How items are compared. `k1` and `b` are read by bm25 only."""

    weighting: Weighting = "cosine"
    neighbours: int = 200
    k1: float = 1.2
    b: float = 0.75
    shrinkage: float = 0.0
    """Similarities are scaled by n / (n + shrinkage), n the users two items share: fewer chance
    neighbours."""
    weights: EventWeights = "binary"
    days: int | None = None
    """Learn from the last so many days only (`models.data.windows`); read by timestamped data."""
    half_life: float | None = None
    """In training a pair counts half for every so many items that its user read since; None: all alike."""
    history_half_life: float | None = None
    """In scoring an item of the history counts half for every so many that came after it; None: all alike."""


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Find each item's strongest neighbours, its row. Kind `item_item`, CSR, zero diagonal.

    A user's score for item j is the sum of similarity(i, j) over the items i of their history, weighted by
    recency where `parameters["history_half_life"]` is set. Nothing is drawn at random, so `seed` changes
    nothing. Raises InputError where a setting is out of range.
    """
    del seed
    if config.neighbours < 1 or config.shrinkage < 0 or (config.days is not None and config.days < 1):
        raise InputError(f"item-kNN needs neighbours, days >= 1 and shrinkage >= 0, got {config}")
    recent = dataset.select(in_window(dataset, config.days))
    matrix = pair_matrix(recent, config.weights, config.half_life)
    weighted = weigh(matrix, config)
    blocks = _similarities(weighted, matrix if config.shrinkage > 0 else None, config.shrinkage, progress)
    indptr, indices, weights = strongest_of_each_row(blocks, config.neighbours)
    return TrainedModel(
        kind="item_item",
        arrays={"indptr": indptr, "indices": indices, "weights": weights},
        parameters=recency_of(dataset, config.history_half_life),
        training={"algorithm": "item_knn", **asdict(config)},
    )


def weigh(matrix: sp.csr_matrix, config: Config) -> sp.csr_matrix:
    """Turn a user-item matrix into item documents over user terms; float32, same shape, items in columns.

    cosine: columns of unit norm. tfidf: sqrt(weight) * idf, then unit norm. bm25: Okapi BM25 with term
    frequency = weight and document length = the item's summed weight (Robertson & Zaragoza 2009, eq. 3.15),
    not normalised. idf of a user = log(n_items) - log(1 + the number of their items), not below 0: who
    reads everything says little.
    """
    coo = matrix.tocoo()
    n_items = matrix.shape[1]
    values = coo.data.astype(np.float64)
    if config.weighting != "cosine":
        idf = np.maximum(np.log(n_items) - np.log1p(np.bincount(coo.row, minlength=matrix.shape[0])), 0.0)
        if config.weighting == "tfidf":
            values = np.sqrt(values) * idf[coo.row]
        else:
            lengths = np.bincount(coo.col, weights=values, minlength=n_items)
            norm = 1.0 - config.b + config.b * lengths / max(lengths[lengths > 0].mean(), 1e-12)
            values = values * (config.k1 + 1.0) / (config.k1 * norm[coo.col] + values) * idf[coo.row]
    if config.weighting != "bm25":
        norms = np.sqrt(np.bincount(coo.col, weights=values**2, minlength=n_items))
        values = values / np.where(norms > 0, norms, 1.0)[coo.col]
    return sp.csr_matrix((values.astype(np.float32), (coo.row, coo.col)), shape=matrix.shape)


def _similarities(
    weighted: sp.csr_matrix, counted: sp.csr_matrix | None, shrinkage: float, progress: bool
) -> Iterator[npt.NDArray[np.float32]]:
    n_items = weighted.shape[1]
    step = max(1, _BLOCK_CELLS // max(n_items, 1))
    by_item = weighted.T.tocsr()
    shared = None
    if counted is not None:
        shared = counted.copy()
        shared.data[:] = 1.0
    shared_by_item = None if shared is None else shared.T.tocsr()
    for start in ticking(range(0, n_items, step), "item-kNN", progress):
        block = (by_item[start : start + step] @ weighted).toarray()
        if shared is not None and shared_by_item is not None:
            n = (shared_by_item[start : start + step] @ shared).toarray()
            block *= n / (n + np.float32(shrinkage))
        rows = np.arange(len(block))
        block[rows, start + rows] = 0.0
        yield block
