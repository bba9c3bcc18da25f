"""EASE: embarrassingly shallow autoencoder (Steck, WWW 2019), solved in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from models.data.dataset import Dataset
from models.event_weights import EventWeights, pair_matrix, recency_of
from models.knn.truncation import strongest_of_each_row
from models.trained import TrainedModel
from service.errors import InputError

DENSE_ITEMS = 6_000
"""Up to here the whole matrix is kept: 144 MB."""
DOUBLE_ITEMS = 1_000
"""Up to here the solve is in double precision; beyond, in single: enough for the ranking, at half the memory."""
MAX_ITEMS = 30_000
"""Beyond, the solve would need more than two matrices of 3.6 GB and about an hour on two cores."""
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Config:
    """How strongly the weights are held back, and how many are kept."""

    regularization: float = 500.0
    width: int | None = None
    """Strongest weights kept of each row; None: all of them up to DENSE_ITEMS items, 400 beyond."""
    weights: EventWeights = "binary"
    half_life: float | None = None
    """In training a pair counts half for every so many items that its user read since; None: all alike."""
    history_half_life: float | None = None
    """In scoring an item of the history counts half for every so many that came after it; None: all alike."""


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Solve B = I - P / diag(P), P = (X^T X + regularization * I)^-1 (Steck 2019, eq. 8). Kind `item_item`.

    Dense float32 (n_items, n_items) with a zero diagonal, or CSR rows where `width` says or the catalogue
    asks for it. An item without events has a zero row and column. Nothing is drawn at random, so `seed`
    changes nothing. Raises InputError above MAX_ITEMS items with events or for a regularization that is not
    positive.
    """
    del seed, progress
    if not config.regularization > 0:
        raise InputError(f"EASE needs a regularization above 0, got {config.regularization}")
    matrix = pair_matrix(dataset, config.weights, config.half_life)
    with_events = np.flatnonzero(np.diff(matrix.tocsc().indptr)).astype(np.int64)
    if len(with_events) > MAX_ITEMS:
        raise InputError(
            f"EASE inverts an items x items matrix: {len(with_events)} items with events would need about "
            f"{len(with_events) ** 2 * 8 >> 30} GB. It takes up to {MAX_ITEMS}; leave 'ease' out of --models"
        )
    solved = solve(matrix[:, with_events], config.regularization)
    width = config.width if config.width is not None else (0 if dataset.n_items <= DENSE_ITEMS else 400)
    arrays: dict[str, npt.NDArray[Any]]
    if width == 0:
        dense = np.zeros((dataset.n_items, dataset.n_items), np.float32)
        dense[np.ix_(with_events, with_events)] = solved
        arrays = {"dense": dense}
    else:
        indptr, indices, weights = strongest_of_each_row(_rows_at_once(solved), width)
        full = np.zeros(dataset.n_items + 1, np.int64)
        full[with_events + 1] = np.diff(indptr)
        arrays = {
            "indptr": np.cumsum(full),
            "indices": with_events[indices].astype(np.int32),
            "weights": weights,
        }
    return TrainedModel(
        kind="item_item",
        arrays=arrays,
        parameters=recency_of(dataset, config.history_half_life),
        training={"algorithm": "ease", **asdict(config)},
    )


def solve(matrix: Any, regularization: float) -> npt.NDArray[np.float32]:
    """float32 (n, n): the weights of a sparse user-item matrix whose n columns all have events."""
    gram = (matrix.T @ matrix).toarray()
    small = len(gram) <= DOUBLE_ITEMS
    # Symmetric, so its transpose, a Fortran-ordered view, saves LAPACK a copy.
    gram = np.asarray(gram.T, dtype=np.float64 if small else np.float32, order="F")
    gram[np.diag_indices_from(gram)] += regularization
    factorize, invert = (lapack.dpotrf, lapack.dpotri) if small else (lapack.spotrf, lapack.spotri)
    factor, failed = factorize(gram, lower=1, overwrite_a=1)
    if failed:
        raise InputError(f"EASE: the matrix is singular with regularization {regularization}; raise it")
    inverse, failed = invert(factor, lower=1, overwrite_c=1)
    if failed:
        raise InputError(f"EASE: the matrix is singular with regularization {regularization}; raise it")
    inverse = np.asarray(inverse)
    diagonal = np.diag(inverse).copy()
    for start in range(0, len(inverse), _ROWS_AT_ONCE):  # only the lower triangle was filled
        stop = start + _ROWS_AT_ONCE
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
        corner = inverse[start:stop, start:stop]
        inverse[start:stop, start:stop] = np.tril(corner) + np.tril(corner, -1).T
    weights = np.divide(inverse, -diagonal[None, :], dtype=inverse.dtype).astype(np.float32)
    weights[np.diag_indices_from(weights)] = 0.0
    return np.ascontiguousarray(weights)


def _rows_at_once(matrix: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        yield matrix[start : start + _ROWS_AT_ONCE]
