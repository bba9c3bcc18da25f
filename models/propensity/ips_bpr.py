"""The recipe `ips_bpr`: BPR whose positives count by how unlikely their item was to be seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset
from models.propensity import bpr
from models.propensity.logistic import Factors, Propensity
from models.trained import TrainedModel
from service.errors import InputError

_DIM = 8
"""Of the vectors that propensity is estimated from."""
_ASKED = 500
"""Users over whom an item's propensity is averaged, evenly drawn."""


@dataclass(frozen=True, slots=True)
class Config:
    """Size and steps. `power`: 0 counts all positives alike (plain BPR), 1 by minus the log of their propensity."""

    dim: int = 32
    epochs: int = 20
    learning_rate: float = 0.05
    regularization: float = 0.002
    power: float = 1.0
    max_seconds: float = 600.0
    """Of BPR's epochs."""


def lacks(dataset: Dataset) -> str | None:
    """Say why the data doesn't do: propensity needs two users and two items that have events."""
    n = min(len(np.unique(dataset.user_rows)), len(np.unique(dataset.item_rows)))
    return None if n > 2 else "more than two users and items with events"


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train: kind `factors`, "ip", dim + 1, the last being an item's bias (1 for users).

    An item's propensity is the mean over users of `models.propensity.logistic`'s. Raises InputError where a setting is
    out of range or there is too little to learn from.
    """
    del progress
    if config.dim < 1 or config.epochs < 1 or not config.learning_rate > 0 or not 0 <= config.power <= 4:
        raise InputError(
            f"ips_bpr needs dim, epochs >= 1, learning_rate > 0 and power of 0 to 4, got {config}"
        )
    if not config.max_seconds > 0:
        raise InputError(f"ips_bpr needs max_seconds > 0, got {config}")
    if (reason := lacks(dataset)) is not None:
        raise InputError(f"ips_bpr needs {reason}")
    matrix = dataset.matrix(binary=True)
    users = np.flatnonzero(np.diff(matrix.indptr)).astype(np.int32)
    items = np.flatnonzero(np.bincount(matrix.indices, minlength=dataset.n_items)).astype(np.int32)
    pairs = matrix[users][:, items].tocsr()
    weights = bpr.log_propensity_weights(item_propensities(pairs, seed)) ** config.power
    settings = bpr.Config(
        config.dim, config.epochs, config.learning_rate, config.regularization, max_seconds=config.max_seconds
    )
    found = bpr.train(pairs, settings, item_weights=weights, seed=seed)
    item_vectors = np.column_stack([found.item_vectors, found.item_biases]).astype(np.float32)
    user_vectors = np.column_stack([found.user_vectors, np.ones(len(users))]).astype(np.float32)
    if not (np.isfinite(item_vectors).all() and np.isfinite(user_vectors).all()):
        raise InputError(f"ips_bpr: the steps ran away to infinity: lower learning_rate ({config})")
    return TrainedModel(
        kind="factors",
        space="ip",
        arrays={
            "item_rows": items, "item_vectors": np.ascontiguousarray(item_vectors),
            "user_rows": users, "user_vectors": np.ascontiguousarray(user_vectors),
        },
        training={"algorithm": "ips_bpr", "seed": seed, "losses": found.losses.tolist(), **asdict(config)},
    )  # fmt: skip


def item_propensities(pairs: object, seed: int) -> npt.NDArray[np.float64]:
    """How likely an item was to be seen by a user, mean over users: float64 (n_items,)."""
    n_users, n_items = pairs.shape  # type: ignore[attr-defined]  # scipy has no types
    dim = max(1, min(_DIM, n_users - 1, n_items - 1))
    factors = Factors.of_interactions(pairs, dim, seed=seed)
    model = Propensity.fit(pairs, factors, seed=seed)
    asked = np.linspace(0, n_users - 1, min(_ASKED, n_users)).astype(np.int64)
    every = np.arange(n_items)
    total = np.zeros(n_items)
    for user in asked.tolist():
        total += model.of_pairs(np.full(n_items, user), every)
    found: npt.NDArray[np.float64] = np.clip(total / len(asked), 0.0, 1.0)
    return found
