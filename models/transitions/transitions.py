"""Transitions: after an item come the items that other users went on to (a first-order Markov chain, softened)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.event_weights import recency_of
from models.knn.truncation import strongest_of_each_row
from models.progress import ticking
from models.trained import TrainedModel
from service.errors import InputError

MAX_WINDOW = 1_000
_PAIRS_AT_ONCE = 1 << 22
"""Event pairs held at once: about 100 MB."""
_BLOCK_CELLS = 1 << 24
"""Weights held dense at once: 64 MB."""


@dataclass(frozen=True, slots=True)
class Config:
    """What counts as a transition, and how much."""

    window: int = 20
    """An event leads to each of the next so many events of its user; 1: to the very next only."""
    gap_half_life: float = 5.0
    """The d-th event after it counts 2^(-(d - 1) / gap_half_life)."""
    backward: float = 0.0
    """Share at which a transition counts in the opposite direction too; 1: order does not matter."""
    shrinkage: float = 50.0
    """Counts that an item's total is raised by: items that few events follow say less."""
    discount: float = 0.0
    """How much it takes off items that follow anything: 0 ranks by conditional probability, 0.5 nearly as a
    cosine."""
    neighbours: int = 400
    """Strongest weights kept of each row."""
    history_half_life: float | None = 2.0
    """In scoring an item of the history counts half for every so many that came after it; None: all alike."""


def lacks(dataset: Dataset) -> str | None:
    """Say what this data lacks to learn transitions from; None where it has all."""
    return None if dataset.times is not None else "its events have no order: no time, no position"


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Count who follows whom. Kind `item_item`, CSR, zero diagonal, no weight below zero.

    W[i, j] = C[i, j] / ((C[i, .] + shrinkage) * C[., j]^discount), where C is `counted`. Without shrinkage and
    discount a row is the conditional probability of the next item (as in Rendle et al., FPMC, WWW 2010, eq. 6,
    over all users). Nothing is drawn at random, so `seed` changes nothing.
    Raises InputError for data without order and where a setting is out of range.
    """
    del seed
    _refuse_impossible(dataset, config)
    counts = counted(dataset, config, progress=progress)
    matrix = _truncated(_normalised(counts, config.shrinkage, config.discount), config.neighbours)
    return TrainedModel(
        kind="item_item",
        arrays={
            "indptr": matrix.indptr.astype(np.int64),
            "indices": matrix.indices.astype(np.int32),
            "weights": matrix.data,
        },
        parameters=recency_of(dataset, config.history_half_life),
        training={"algorithm": "transitions", **asdict(config)},
    )


def counted(dataset: Dataset, config: Config, *, progress: bool = False) -> sp.csr_matrix:
    """Count transitions: float32 (n_items, n_items), C[i, j] = how often, and how closely, j came after i.

    Sums 2^(-(d - 1) / gap_half_life) over all events of i and the events of j up to `window` places later in
    the same user's order (events of equal time in that of the file), plus `backward` times the transpose. An
    item does not follow itself.
    """
    ordered = dataset.in_time_order()
    shape = (dataset.n_items, dataset.n_items)
    counts = sp.csr_matrix(shape, dtype=np.float32)
    ends = np.searchsorted(ordered.user_rows, ordered.user_rows, side="right")
    followers = np.minimum(ends - 1 - np.arange(len(ordered)), config.window)
    for part in ticking(_parts(followers), "transitions", progress):
        counts = counts + _of_part(ordered.item_rows, followers, part, config.gap_half_life, dataset.n_items)
    if config.backward > 0:
        counts = counts + np.float32(config.backward) * counts.T.tocsr()
    counts.setdiag(0.0)
    counts.eliminate_zeros()
    return counts


def _refuse_impossible(dataset: Dataset, config: Config) -> None:
    if reason := lacks(dataset):
        raise InputError(f"transitions can't be learned from this data: {reason}; leave them out of --models")
    if not 1 <= config.window <= MAX_WINDOW or config.neighbours < 1:
        raise InputError(f"transitions need a window of 1 to {MAX_WINDOW} and neighbours >= 1, got {config}")
    if not (config.gap_half_life > 0 and math.isfinite(config.gap_half_life)):
        raise InputError(f"transitions need a gap_half_life above 0, got {config}")
    if not (config.shrinkage >= 0 and 0 <= config.backward <= 1 and 0 <= config.discount <= 1):
        raise InputError(f"transitions need shrinkage >= 0, backward and discount in 0..1, got {config}")


def _parts(followers: npt.NDArray[np.int64]) -> list[slice]:
    """Cut the events so that each part has about as many pairs as are held at once."""
    until = np.cumsum(followers)
    cuts = np.searchsorted(
        until, np.arange(_PAIRS_AT_ONCE, int(until[-1]) if len(until) else 0, _PAIRS_AT_ONCE)
    )
    bounds = np.unique(np.concatenate([[0], cuts, [len(followers)]])).tolist()
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _of_part(
    items: npt.NDArray[np.int32],
    followers: npt.NDArray[np.int64],
    part: slice,
    gap_half_life: float,
    n_items: int,
) -> sp.csr_matrix:
    """Sum, by the item of an event, the rows of what follows it: a product of two sparse matrices."""
    own = followers[part]
    indptr = np.concatenate([[0], np.cumsum(own)]).astype(np.int32)  # half the width is half the traffic
    gaps = np.arange(indptr[-1], dtype=np.int32) - np.repeat(indptr[:-1], own)
    first = np.arange(part.start + 1, part.stop + 1, dtype=np.int32)
    following = items[np.repeat(first, own) + gaps]
    weights = np.exp2(-np.arange(int(own.max(initial=0))) / gap_half_life).astype(np.float32)[gaps]
    after = sp.csr_matrix((weights, following, indptr), shape=(len(own), n_items))
    events = np.arange(len(own), dtype=np.int32)
    of_item = sp.csr_matrix((np.ones(len(own), np.float32), (items[part], events)), shape=(n_items, len(own)))
    return of_item @ after


def _normalised(counts: sp.csr_matrix, shrinkage: float, discount: float) -> sp.csr_matrix:
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel() + shrinkage
    followed = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel() ** discount
    rows = np.repeat(totals, np.diff(counts.indptr))
    weights = (counts.data / (rows * followed[counts.indices])).astype(np.float32)
    return sp.csr_matrix((weights, counts.indices, counts.indptr), shape=counts.shape)


def _truncated(matrix: sp.csr_matrix, width: int) -> sp.csr_matrix:
    """Keep the `width` strongest entries of each row, columns ascending. Only rows that are longer are looked at."""
    lengths = np.diff(matrix.indptr)
    long = np.flatnonzero(lengths > width)
    step = max(1, _BLOCK_CELLS // max(matrix.shape[1], 1))
    blocks = (matrix[long[start : start + step]].toarray() for start in range(0, len(long), step))
    indptr, indices, weights = strongest_of_each_row(blocks, width)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    short = (lengths <= width)[rows]
    entries = (
        np.concatenate([rows[short], np.repeat(long, np.diff(indptr))]),
        np.concatenate([matrix.indices[short], indices]),
    )
    kept = sp.csr_matrix((np.concatenate([matrix.data[short], weights]), entries), shape=matrix.shape)
    kept.sort_indices()
    return kept
