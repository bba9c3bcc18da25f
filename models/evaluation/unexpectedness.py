"""Surprise against a user's own history, by what training saw together, and how alike a list is in vectors.

`recommended` is as in `models.evaluation.metrics`; histories are of the same users, by catalogue row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.evaluation.bootstrap import PerUser
from models.evaluation.metrics import NOWHERE, Codes, Floats


def normalised_pmi(together: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, n: int) -> Floats:
    """Normalised PMI: ln(p_ij / (p_i p_j)) / -ln p_ij (Bouma 2009), p = users / n; -1 never, 1 always together.

    together, first, second: users of both items, of the one and of the other, broadcast against each other.
    """
    both, one, other = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (together, first, second)))
    values = np.full(both.shape, -1.0)
    values[both >= n] = 1.0  # all users have both: the limit of 0 / 0
    inside = (both > 0) & (both < n)
    pmi = np.log(both[inside] * n / (one[inside] * other[inside]))
    values[inside] = pmi / -np.log(both[inside] / n)
    return values


def unexpectedness_of_places(recommended: Codes, histories: sp.csr_matrix, training: sp.csr_matrix) -> Floats:
    """Most that a place's item is against an item of the user's history: max of -nPMI, float64 (n_users, K).

    histories: CSR (n_users, n_items) of the users asked; training: CSR (n_training_users, n_items), which is
    counted once a (user, item) pair. An item training never saw is 1; a place without an item and every
    place of a user without history is NaN. -1: read by exactly those who read all of the history; 1: never
    read together with some item of it.
    """
    seen = sp.csr_matrix(training, dtype=np.float64, copy=True)
    seen.sum_duplicates()
    seen.data[:] = 1.0
    n_training, n_items = seen.shape
    counts = np.asarray(seen.sum(axis=0)).ravel()
    known = np.unique(recommended[(recommended >= 0) & (recommended < n_items)])
    together = (seen[:, known].T @ seen).tocsr()
    values = np.full(recommended.shape, np.nan)
    for user, listed in enumerate(recommended):
        history = histories.indices[histories.indptr[user] : histories.indptr[user + 1]]
        if not len(history):
            continue
        values[user, listed != NOWHERE] = 1.0
        places = np.flatnonzero((listed >= 0) & (listed < n_items))
        items = listed[places]
        both = together[np.searchsorted(known, items)][:, history].toarray()
        pmi = normalised_pmi(both, counts[items][:, None], counts[history][None, :], n_training)
        values[user, places] = (-pmi).max(axis=1)
    return values


def unexpectedness(places: Floats) -> PerUser:
    """`Unexpectedness`: mean of a list's places, then over users. `places`: `unexpectedness_of_places`."""
    return _mean_of_places(places, places)


def unexpected_relevance(places: Floats, hit: npt.NDArray[np.bool_]) -> PerUser:
    """Serendipity as unexpectedness times relevance, mean of a list's places, then over users.

    hit: bool (n_users, K), `metrics.hits`. `beyond_accuracy.serendipity` is the one against popularity.
    """
    return _mean_of_places(places * hit, places)


def _mean_of_places(values: Floats, places: Floats) -> PerUser:
    n = (~np.isnan(places)).sum(axis=1)
    return PerUser(np.nansum(values, axis=1) / np.maximum(n, 1), (n > 0).astype(np.float64))


def cosine_diversity(recommended: Codes, vectors: npt.NDArray[np.floating]) -> PerUser:
    """1 - mean cosine of a list's pairs, mean over users with two items or more (Ziegler et al. 2005).

    vectors: float (n_items, dim); an item without one (beyond them, or of length 0) is orthogonal to all.
    Of unit vectors, sum over pairs = (|sum|^2 - sum of |v|^2) / 2, so no pair is formed.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0)
    inside = (recommended >= 0) & (recommended < len(unit))
    listed = np.where(inside[:, :, None], unit[np.where(inside, recommended, 0)], 0.0)
    n = (recommended != NOWHERE).sum(axis=1).astype(np.float64)
    of_sum, of_each = np.square(listed.sum(axis=1)).sum(axis=1), np.square(listed).sum(axis=(1, 2))
    alike = (of_sum - of_each) / np.maximum(n * (n - 1), 1)
    return PerUser(np.where(n > 1, 1.0 - alike, 0.0), (n > 1).astype(np.float64))
