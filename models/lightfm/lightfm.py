"""LightFM (Kula, CBRecSys 2015) through the library of that name: a vector is the sum of its features' vectors."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.event_weights import EventWeights, pair_matrix
from models.lightfm.tokens import token_matrix
from models.progress import advancing
from models.trained import TrainedModel
from service.errors import InputError


@dataclass(frozen=True, slots=True)
class Config:
    """Size, loss and steps. `features` False: ids alone."""

    factors: int = 64
    loss: Literal["logistic", "bpr", "warp", "warp-kos"] = "warp"
    learning_rate: float = 0.05
    max_sampled: int = 10
    """WARP: how many unread items are tried to find one that is scored too high."""
    epochs: int = 20
    item_alpha: float = 0.0
    user_alpha: float = 0.0
    weights: EventWeights = "binary"
    features: bool = True
    max_seconds: float = 600.0
    """Of the epochs; what is reached by then is kept, after one epoch at least."""


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train: kind `factors`, "ip", dim = factors + 1, the last being an item's bias (1 for users).

    A user's own bias moves none of their items past another, so it is left out. Users and items without events but
    with a feature that others have get a vector from features alone. Single-threaded: parallel steps overwrite each
    other, and a seed would no longer give one model. Raises InputError where the library is missing, a setting is out
    of range or there are no events.
    """
    if (reason := lacks(dataset)) is not None:
        raise InputError(f"LightFM: {reason}")
    if config.factors < 1 or config.epochs < 1 or config.max_sampled < 1 or not config.learning_rate > 0:
        raise InputError(
            f"LightFM needs factors, epochs, max_sampled >= 1 and learning_rate > 0, got {config}"
        )
    if not (config.item_alpha >= 0 and config.user_alpha >= 0 and config.max_seconds > 0):
        raise InputError(f"LightFM needs item_alpha, user_alpha >= 0, max_seconds > 0, got {config}")
    if len(dataset) == 0:
        raise InputError("LightFM has nothing to learn from: no events")
    if config.weights != "binary" and config.loss == "warp-kos":
        raise InputError("LightFM: the loss warp-kos takes no weights: set weights = 'binary'")
    from lightfm import LightFM  # noqa: PLC0415 - an extra, only where it is asked for

    users = token_matrix(dataset.users if config.features else None, dataset.n_users)
    items = token_matrix(dataset.items if config.features else None, dataset.n_items)
    model = LightFM(
        no_components=config.factors,
        loss=config.loss,
        learning_rate=config.learning_rate,
        max_sampled=config.max_sampled,
        item_alpha=config.item_alpha,
        user_alpha=config.user_alpha,
        random_state=np.random.RandomState(seed),
    )
    pairs = pair_matrix(dataset, config.weights).tocoo()
    observed = sp.coo_matrix((np.ones(pairs.nnz, np.float32), (pairs.row, pairs.col)), shape=pairs.shape)
    with advancing("LightFM", config.epochs, progress) as advance:
        end = time.monotonic() + config.max_seconds
        for epoch in range(config.epochs):
            if epoch and time.monotonic() > end:
                break
            model.fit_partial(
                observed,
                user_features=users,
                item_features=items,
                sample_weight=None if config.weights == "binary" else pairs,
                epochs=1,
                num_threads=1,
            )
            advance()
    item_biases, item_vectors = model.get_item_representations(items)
    _, user_vectors = model.get_user_representations(users)
    item_rows = _described(items, np.bincount(dataset.item_rows, minlength=dataset.n_items))
    user_rows = _described(users, np.bincount(dataset.user_rows, minlength=dataset.n_users))
    item_vectors = np.column_stack([item_vectors, item_biases])[item_rows].astype(np.float32)
    user_vectors = np.column_stack([user_vectors, np.ones(dataset.n_users)])[user_rows].astype(np.float32)
    if not (np.isfinite(item_vectors).all() and np.isfinite(user_vectors).all()):
        raise InputError(f"LightFM: the steps ran away to infinity: lower learning_rate ({config})")
    return TrainedModel(
        kind="factors",
        space="ip",
        arrays={
            "item_rows": item_rows, "item_vectors": item_vectors,
            "user_rows": user_rows, "user_vectors": user_vectors,
        },
        training={"algorithm": "lightfm", "seed": seed, **asdict(config)},
    )  # fmt: skip


def lacks(_: Dataset) -> str | None:
    """Say what is missing for this model; None if nothing."""
    try:
        import lightfm  # noqa: F401, PLC0415 - asked only whether it is there
    except ImportError:
        return "its library is not installed: pip install 'reco-service[lightfm]'"
    return None


def _described(tokens: sp.csr_matrix, events: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Rows with events, or with a feature of somebody who has."""
    own = np.arange(tokens.shape[0])
    shared: npt.NDArray[np.bool_] = (tokens.T @ (events > 0).astype(np.float32)) > 0
    shared[own] = False
    told = np.asarray(tokens @ shared.astype(np.float32)) > 0
    return np.flatnonzero((events > 0) | told).astype(np.int32)
