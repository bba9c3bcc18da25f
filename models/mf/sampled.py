"""BPR (Rendle et al., UAI 2009) and logistic factorization (Johnson, NIPS workshop 2014) through `implicit`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.cpu.lmf import LogisticMatrixFactorization

from models.data.dataset import Dataset
from models.progress import advancing
from models.trained import TrainedModel
from service.errors import InputError


@dataclass(frozen=True, slots=True)
class BprConfig:
    """Steps on (user, read item, unread item) triples."""

    factors: int = 64
    learning_rate: float = 0.05
    regularization: float = 0.01
    iterations: int = 60


@dataclass(frozen=True, slots=True)
class LmfConfig:
    """Steps on the log-likelihood of read against sampled unread items."""

    factors: int = 32
    learning_rate: float = 1.0
    regularization: float = 0.6
    iterations: int = 30
    negatives: int = 30
    """Unread items sampled for each read one."""


def train_bpr(dataset: Dataset, config: BprConfig, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train BPR: kind `factors`, "ip", dim = factors + 1, the last being an item's bias (1 for users).

    Single-threaded: parallel steps overwrite each other, and a seed would no longer give one model. Raises
    InputError where a setting is out of range or there are no events.
    """
    _check("BPR", dataset, config)
    model = BayesianPersonalizedRanking(
        factors=config.factors,
        learning_rate=config.learning_rate,
        regularization=config.regularization,
        iterations=config.iterations,
        num_threads=1,
        random_state=seed,
    )
    return _trained("bpr", model, dataset, config, seed, progress)


def train_lmf(dataset: Dataset, config: LmfConfig, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train logistic factorization: kind `factors`, "ip", dim = factors + 2 (the two biases).

    Single-threaded, as BPR is. Raises InputError where a setting is out of range or there are no events.
    """
    _check("logistic factorization", dataset, config)
    if config.negatives < 1:
        raise InputError(f"logistic factorization needs negatives >= 1, got {config.negatives}")
    model = LogisticMatrixFactorization(
        factors=config.factors,
        learning_rate=config.learning_rate,
        regularization=config.regularization,
        iterations=config.iterations,
        neg_prop=config.negatives,
        num_threads=1,
        random_state=seed,
    )
    return _trained("lmf", model, dataset, config, seed, progress)


def _check(name: str, dataset: Dataset, config: BprConfig | LmfConfig) -> None:
    if (
        config.factors < 1
        or config.iterations < 1
        or not config.learning_rate > 0
        or not config.regularization >= 0
    ):
        raise InputError(
            f"{name} needs factors, iterations >= 1, learning_rate > 0 and regularization >= 0, got {config}"
        )
    if len(dataset) == 0:
        raise InputError(f"{name} has nothing to learn from: no events")


def _trained(
    algorithm: str, model: Any, dataset: Dataset, config: BprConfig | LmfConfig, seed: int, progress: bool
) -> TrainedModel:
    matrix = dataset.matrix(binary=True)
    user_rows = np.flatnonzero(np.diff(matrix.indptr)).astype(np.int32)
    item_rows = np.flatnonzero(np.bincount(matrix.indices, minlength=dataset.n_items)).astype(np.int32)
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        advancing(algorithm.upper(), config.iterations, progress) as advance,
    ):
        model.fit(matrix[user_rows][:, item_rows].tocsr(), show_progress=False, callback=lambda *_: advance())
    items, users = _finite(model.item_factors), _finite(model.user_factors)
    if len(items) != len(item_rows) or len(users) != len(user_rows):
        raise InputError(f"{algorithm}: the steps ran away to infinity: lower learning_rate ({config})")
    return TrainedModel(
        kind="factors",
        space="ip",
        arrays={
            "item_rows": item_rows, "item_vectors": items, "user_rows": user_rows, "user_vectors": users,
        },
        training={"algorithm": algorithm, "seed": seed, **asdict(config)},
    )  # fmt: skip


def _finite(vectors: Any) -> npt.NDArray[np.float32]:
    array = np.ascontiguousarray(vectors, np.float32)
    return array[np.isfinite(array).all(axis=1)]
