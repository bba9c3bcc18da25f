"""BPR whose positives count by how unlikely they were: popular items push less, rare ones more.

Bayesian personalised ranking (Rendle et al. 2009): -ln sigmoid(x_ui - x_uj) over positives i and others j,
x_ui = b_i + e_u . e_i. Each positive is weighted by minus the log of its item's propensity.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.special import expit

from service.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Config:
    """How vectors are learnt."""

    dim: int = 16
    epochs: int = 30
    learning_rate: float = 0.05
    regularization: float = 0.002
    batch: int = 256
    max_seconds: float = math.inf
    """Of the epochs; what is reached by then is kept, after one epoch at least."""


@dataclass(frozen=True, slots=True)
class Bpr:
    """item_biases: float64 (n_items,). user_vectors: float64 (n_users, dim). item_vectors: float64 (n_items, dim).

    losses: float64 (epochs run,), the mean weighted loss over the pairs of each pass, as they were met.
    """

    item_biases: Floats
    user_vectors: Floats
    item_vectors: Floats
    losses: Floats

    def scores(self) -> Floats:
        """x_ui of all pairs, float64 (n_users, n_items)."""
        return np.asarray(self.item_biases + self.user_vectors @ self.item_vectors.T, np.float64)


def log_propensity_weights(
    item_propensities: npt.ArrayLike, *, low: float = 0.1, high: float = 10.0
) -> Floats:
    """-ln p clipped to [low, high], float64 (n_items,). Clipping keeps the popular in and the rare in bounds.

    item_propensities: probabilities of an item being seen; 0 is clipped to `high`. Raises ValueError for
    other than probabilities or unless 0 < low <= high.
    """
    seen = np.asarray(item_propensities, np.float64)
    if not ((seen >= 0) & (seen <= 1)).all():
        raise ValueError("propensities are probabilities")
    if not 0.0 < low <= high:
        raise ValueError(f"clipping to [{low}, {high}]")
    weights = np.full(seen.shape, high)
    weights[seen > 0] = np.clip(-np.log(seen[seen > 0]), low, high)
    return weights


def train(
    interactions: sp.csr_matrix, config: Config, *, item_weights: npt.ArrayLike | None = None, seed: int = 0
) -> Bpr:
    """Learn from the pairs of a CSR (n_users, n_items); every pair once a pass, an other item drawn anew.

    item_weights: (n_items,), of positives by item, None: all alike. They are scaled to a mean of 1 over the
    pairs, so that the learning rate means the same with and without. A drawn item that the user has is
    skipped. Raises InputError without pairs, ValueError for weights that don't fit.
    """
    pairs = sp.csr_matrix(interactions, copy=True)
    pairs.sum_duplicates()
    n_users, n_items = pairs.shape
    if not pairs.nnz:
        raise InputError("there are no interactions to learn from")
    weights = np.ones(n_items) if item_weights is None else np.asarray(item_weights, np.float64)
    if weights.shape != (n_items,) or not (weights > 0).all():
        raise ValueError(f"{n_items} weights above 0, not {weights.shape}")
    users = np.repeat(np.arange(n_users), np.diff(pairs.indptr))
    items = pairs.indices.astype(np.int64)
    weights = weights / weights[items].mean()
    held = users * n_items + items
    held.sort()
    rng = np.random.default_rng(seed)
    biases = np.zeros(n_items)
    user_vectors = rng.normal(0.0, 0.1, (n_users, config.dim))
    item_vectors = rng.normal(0.0, 0.1, (n_items, config.dim))
    losses: list[float] = []
    end = time.monotonic() + config.max_seconds
    while len(losses) < config.epochs and (not losses or time.monotonic() < end):
        order = rng.permutation(len(users))
        drawn = rng.integers(0, n_items, len(users))
        total, met = 0.0, 0
        for start in range(0, len(order), config.batch):
            chosen = order[start : start + config.batch]
            u, i, j = users[chosen], items[chosen], drawn[chosen]
            cell = u * n_items + j
            place = np.minimum(np.searchsorted(held, cell), len(held) - 1)
            new = held[place] != cell
            u, i, j = u[new], i[new], j[new]
            e_u, e_i, e_j = user_vectors[u], item_vectors[i], item_vectors[j]
            ahead = biases[i] - biases[j] + np.einsum("nd,nd->n", e_u, e_i - e_j)
            total += float((weights[i] * np.logaddexp(0.0, -ahead)).sum())
            met += len(u)
            pull = (weights[i] * expit(-ahead))[:, None]
            rate, hold = config.learning_rate, config.regularization
            np.add.at(user_vectors, u, rate * (pull * (e_i - e_j) - hold * e_u))
            np.add.at(item_vectors, i, rate * (pull * e_u - hold * e_i))
            np.add.at(item_vectors, j, rate * (-pull * e_u - hold * e_j))
            np.add.at(biases, i, rate * (pull[:, 0] - hold * biases[i]))
            np.add.at(biases, j, rate * (-pull[:, 0] - hold * biases[j]))
        losses.append(total / max(met, 1))
    return Bpr(biases, user_vectors, item_vectors, np.array(losses))
