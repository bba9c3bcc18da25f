"""Matrix factorization on ratings by full-batch gradient steps with momentum: the textbook's first model.

With the ratings Y and the mask M of those given, and P = U V^T, the loss is sum(M (Y - P)^2) / N over the N ratings,
so its gradient in U is -2/N ((Y - P) M) V, and in V the same with the roles exchanged. A step is a mean of past
gradients: S <- momentum S + (1 - momentum) gradient, U <- U - learning_rate S.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.history import latest_events
from models.progress import advancing
from models.trained import TrainedModel
from service.errors import InputError

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Config:
    """Size and steps. Factors start uniform in [0, 6 / factors)."""

    factors: int = 50
    learning_rate: float = 1.0
    momentum: float = 0.9
    iterations: int = 2500


def loss_and_gradients(ratings: sp.csr_matrix, users: Matrix, items: Matrix) -> tuple[float, Matrix, Matrix]:
    """Mean squared error over the given ratings, and its gradients: float64 (n_users, k) and (n_items, k).

    ratings: float64 CSR (n_users, n_items), an entry for each rating given.
    """
    rows = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
    errors = ratings.data - np.einsum("nk,nk->n", users[rows], items[ratings.indices])
    error = sp.csr_matrix((errors, ratings.indices, ratings.indptr), shape=ratings.shape)
    scale = -2.0 / max(len(errors), 1)
    return float(np.mean(errors**2)), scale * (error @ items), scale * (error.T @ users)


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Fit the users' latest ratings of items: kind `factors`, "ip"; score = the rating expected.

    The losses of the first, the middle and the last step are in `training`. Raises InputError where the data has no
    ratings or a setting is out of range.
    """
    if (
        config.factors < 1
        or config.iterations < 1
        or not config.learning_rate > 0
        or not 0 <= config.momentum < 1
    ):
        raise InputError(
            "factorization of ratings needs factors, iterations >= 1, learning_rate > 0 and 0 <= momentum < 1, "
            f"got {config}"
        )
    if (reason := lacks(dataset)) is not None:
        raise InputError(f"factorization of ratings: {reason}")
    latest = latest_events(dataset)
    assert latest.ratings is not None  # lacks() looked
    latest = latest.select(np.isfinite(latest.ratings))
    assert latest.ratings is not None
    user_rows, u = np.unique(latest.user_rows, return_inverse=True)
    item_rows, i = np.unique(latest.item_rows, return_inverse=True)
    ratings = sp.csr_matrix(
        (latest.ratings.astype(np.float64), (u, i)), shape=(len(user_rows), len(item_rows))
    )
    users, items, losses = descend(ratings, config, seed, progress)
    if not (np.isfinite(users).all() and np.isfinite(items).all()):
        raise InputError(f"factorization of ratings ran away to infinity: lower learning_rate ({config})")
    return TrainedModel(
        kind="factors",
        space="ip",
        arrays={
            "item_rows": item_rows.astype(np.int32),
            "item_vectors": items.astype(np.float32),
            "user_rows": user_rows.astype(np.int32),
            "user_vectors": users.astype(np.float32),
        },
        training={
            "algorithm": "mf",
            "seed": seed,
            **asdict(config),
            "train_mse": [round(losses[at], 6) for at in (0, len(losses) // 2, -1)],
        },
    )


def lacks(dataset: Dataset) -> str | None:
    """Say what the data lacks for this model; None if nothing."""
    if dataset.ratings is None or not np.isfinite(dataset.ratings).any():
        return "it has no ratings"
    return None


def descend(
    ratings: sp.csr_matrix, config: Config, seed: int, progress: bool = False
) -> tuple[Matrix, Matrix, list[float]]:
    """Take the steps: float64 user and item factors, and the loss before each step."""
    rng = np.random.default_rng(seed)
    users = rng.uniform(0.0, 6.0 / config.factors, (ratings.shape[0], config.factors))
    items = rng.uniform(0.0, 6.0 / config.factors, (ratings.shape[1], config.factors))
    user_step, item_step = np.zeros_like(users), np.zeros_like(items)
    losses = []
    with advancing("factorization", config.iterations, progress) as advance:
        for _ in range(config.iterations):
            loss, to_users, to_items = loss_and_gradients(ratings, users, items)
            losses.append(loss)
            user_step = config.momentum * user_step + (1.0 - config.momentum) * to_users
            item_step = config.momentum * item_step + (1.0 - config.momentum) * to_items
            users -= config.learning_rate * user_step
            items -= config.learning_rate * item_step
            advance()
    return users, items, losses
