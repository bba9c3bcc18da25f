"""ALS for implicit feedback (Hu, Koren & Volinsky, ICDM 2008) through the library `implicit`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import threadpoolctl
from implicit.cpu.als import AlternatingLeastSquares

from models.data.dataset import Dataset
from models.event_weights import EventWeights, pair_matrix
from models.progress import advancing
from models.trained import TrainedModel
from service.errors import InputError


@dataclass(frozen=True, slots=True)
class Config:
    """Size and pull of the factorization."""

    factors: int = 64
    alpha: float = 4.0
    """Confidence of an average observed pair, against 1 for an unobserved one."""
    regularization: float = 1.0
    iterations: int = 15
    weights: EventWeights = "binary"
    space: Literal["ip", "cosine"] = "ip"
    """cosine: vectors of unit norm, so that an item's popularity, which lies in its length, no longer counts."""
    half_life: float | None = None
    """A pair counts half for every so many items that its user read since; None: all alike."""


def train(
    dataset: Dataset,
    config: Config,
    *,
    seed: int = 0,
    progress: bool = False,
    users: npt.NDArray[np.int64] | None = None,
) -> TrainedModel:
    """Factorize: vectors float32 (n, factors) for users and items that have events. Kind `factors`, "ip".

    A pair's weight w (`models.event_weights.pair_matrix`) is scaled so that the data's mean is 1, and its
    confidence is c = alpha * w (not 1 + alpha * w): implicit's reading. With the items' vectors Y a user's
    vector x solves A x = b,

        A = Y^T Y + regularization * I + sum over the user's items of (c - 1) y y^T,    b = sum of c y,

    (the paper's eq. 4, p = 1 where observed). The last step solves every user exactly, by Cholesky, so a
    stored vector is what `parameters["fold_in"]` gives for the same history: there `alpha` is the
    confidence of the newest item (of an average one, where weights are given) and `half_life`, where set,
    how many items later it has halved. Vectors that solve to exactly zero are left out, and so, where
    `users` (rows) are given, are those of everybody else, who are learned from all the same. The same seed,
    data and settings give the same arrays, whatever the number of threads. Raises InputError where a setting
    is out of range or there is nothing to learn from.
    """
    if config.factors < 1 or config.iterations < 1 or not config.alpha > 0 or not config.regularization >= 0:
        raise InputError(
            f"ALS needs factors, iterations >= 1, alpha > 0 and regularization >= 0, got {config}"
        )
    matrix = pair_matrix(dataset, config.weights, config.half_life)
    if matrix.nnz == 0:
        raise InputError("ALS has nothing to learn from: no events")
    user_rows = np.flatnonzero(np.diff(matrix.indptr)).astype(np.int32)
    item_rows = np.flatnonzero(np.bincount(matrix.indices, minlength=dataset.n_items)).astype(np.int32)
    observed: sp.csr_matrix = matrix[user_rows][:, item_rows].tocsr().astype(np.float32)
    scale = 1.0 / float(observed.data.mean(dtype=np.float64))
    observed.data *= np.float32(scale)
    asked = np.arange(len(user_rows)) if users is None else np.flatnonzero(np.isin(user_rows, users))
    item_vectors, user_vectors = _factorize(observed, asked, config, seed, progress)
    found_items, found_users = _nonzero(item_vectors), _nonzero(user_vectors)
    parameters: dict[str, Any] = {}
    if config.space == "cosine":
        item_vectors, user_vectors = _unit(item_vectors), _unit(user_vectors)
    else:  # the equations above hold for vectors of their own length only
        parameters["fold_in"] = _fold_in(dataset, config, scale)
    return TrainedModel(
        kind="factors",
        space=config.space,
        arrays={
            "item_rows": item_rows[found_items],
            "item_vectors": np.ascontiguousarray(item_vectors[found_items]),
            "user_rows": user_rows[asked][found_users],
            "user_vectors": np.ascontiguousarray(user_vectors[found_users]),
        },
        parameters=parameters,
        training={"algorithm": "als", "seed": seed, **asdict(config)},
    )


def _fold_in(dataset: Dataset, config: Config, scale: float) -> dict[str, float]:
    settings = {"regularization": float(config.regularization), "alpha": float(config.alpha)}
    if config.half_life is not None and dataset.times is not None:
        # Without decay the newest item would weigh what the mean one does, given weights or not.
        undecayed = pair_matrix(dataset, config.weights).data.mean(dtype=np.float64)
        settings |= {"alpha": float(config.alpha * scale * undecayed), "half_life": float(config.half_life)}
    return settings


def _factorize(
    observed: sp.csr_matrix, asked: npt.NDArray[np.int64], config: Config, seed: int, progress: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    # BLAS threads under implicit's own fight for the same cores.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=config.factors,
            alpha=config.alpha,
            regularization=config.regularization,
            iterations=config.iterations,
            random_state=seed,
        )
        with advancing("ALS", config.iterations, progress) as advance:
            model.fit(observed, show_progress=False, callback=lambda *_: advance())
        users = model.recalculate_user(asked, observed[asked])
    return np.asarray(model.item_factors, np.float32), np.asarray(users, np.float32)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    unit: npt.NDArray[np.float32] = vectors / np.where(norms > 0, norms, 1.0).astype(np.float32)[:, None]
    return unit


def _nonzero(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (vectors != 0).any(axis=1) & np.isfinite(vectors).all(axis=1)
    return found
