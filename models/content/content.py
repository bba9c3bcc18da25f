"""Content neighbours: items alike in their terms, so that one without any event is found by what it is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.content.terms import Terms, term_matrix
from models.data.dataset import Dataset
from models.event_weights import recency_of
from models.knn.truncation import strongest_of_each_row
from models.progress import ticking
from models.trained import TrainedModel
from service.errors import InputError

_ROWS_AT_ONCE = 512
MAX_ITEMS = 200_000


@dataclass(frozen=True, slots=True)
class Config:
    """How likeness is counted and how much of it is kept."""

    terms: Terms = "both"
    rarity: float = 2.0
    """Power of a term's inverse document frequency."""
    length: float = 0.1
    """An item's neighbours count for (number of its terms)^length: much is said of what is much read."""
    hubs: float = 0.2
    """They count for (its likeness to all that was read)^-hubs: who is a little like everything is told apart."""
    neighbours: int = 400
    """Kept of an item: the items of a history that it can be found by."""
    history_half_life: float | None = None
    """See `models.event_weights.recency_of`."""


def lacks(dataset: Dataset) -> str | None:
    """Say what the data lacks for this model; None where two items share a term."""
    if dataset.items is None or not len(dataset.items.columns):
        return "no table of items"
    if dataset.n_items > MAX_ITEMS:
        return f"{dataset.n_items} items; content neighbours are compared among up to {MAX_ITEMS}"
    return (
        None
        if term_matrix(dataset.items, "both").shape[1]
        else "no two items have a word or a value in common"
    )


def train(
    dataset: Dataset,
    config: Config,
    *,
    seed: int = 0,
    progress: bool = False,
    items: npt.NDArray[np.int64] | None = None,
) -> TrainedModel:
    """Compare items by their terms. Kind `item_item`, rows i of what was read, columns j of what may be next.

    W[i, j] = cos(x_i, x_j) * length_j^length * (sum of cos(x_j, x_l) over the items l with events)^-hubs, where x
    has idf^rarity for each term an item has, idf = ln((1 + n) / (1 + items with the term)) + 1. Of each column the
    `neighbours` largest are kept, so every item with a term can be found; with `items`, rows of items, only these are.
    Nothing is drawn at random. Raises InputError where there is nothing to compare.
    """
    del seed
    if dataset.items is None:
        raise InputError("content: the data has no table of items")
    terms = term_matrix(dataset.items, config.terms)
    vectors = unit_vectors(terms, config.rarity)
    read = np.zeros(dataset.n_items, np.float32)
    read[dataset.item_rows] = 1.0
    likeness = np.asarray(vectors @ (vectors.T @ read)).ravel()
    weight = np.maximum(np.diff(terms.indptr), 1.0) ** config.length
    weight = weight * np.maximum(likeness, 1e-3) ** -config.hubs
    found = np.arange(dataset.n_items) if items is None else items
    columns = _likeness(vectors, found, weight.astype(np.float32), progress)
    indptr, indices, weights = strongest_of_each_row(columns, config.neighbours)
    lengths = np.zeros(dataset.n_items, np.int64)
    lengths[found] = np.diff(indptr)
    indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    by_column = sp.csr_matrix((weights, indices, indptr), shape=(dataset.n_items, dataset.n_items))
    matrix = by_column.T.tocsr()
    matrix.sort_indices()
    return TrainedModel(
        "item_item",
        {
            "indptr": matrix.indptr.astype(np.int64),
            "indices": matrix.indices.astype(np.int32),
            "weights": matrix.data.astype(np.float32),
        },
        parameters=recency_of(dataset, config.history_half_life),
        training={"algorithm": "content", **asdict(config), "distinct_terms": int(terms.shape[1])},
    )


def unit_vectors(terms: sp.csr_matrix, rarity: float) -> sp.csr_matrix:
    """TF-IDF of terms that an item has or has not: float32 CSR, rows of unit length, or empty."""
    n_items = terms.shape[0]
    documents = np.bincount(terms.indices, minlength=terms.shape[1])
    idf = (np.log((1.0 + n_items) / (1.0 + documents)) + 1.0) ** rarity
    vectors = sp.csr_matrix(terms.multiply(idf[None, :]), dtype=np.float32)
    norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags(1.0 / np.where(norms > 0, norms, 1.0)) @ vectors, dtype=np.float32)


def _likeness(
    vectors: sp.csr_matrix, found: npt.NDArray[np.int64], weight: npt.NDArray[np.float32], progress: bool
) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of the columns `found` of W, ascending, as rows: float32 (any, n_items), 0 for the item itself."""
    transposed = vectors.T.tocsr()
    for start in ticking(list(range(0, len(found), _ROWS_AT_ONCE)), "content", progress):
        own = found[start : start + _ROWS_AT_ONCE]
        block = (vectors[own] @ transposed).toarray()
        block[np.arange(len(own)), own] = 0.0
        yield block * weight[own, None]
