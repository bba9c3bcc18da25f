"""User-kNN: what the users most alike have read, as a list computed beforehand for every user."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.event_weights import EventWeights, pair_matrix
from models.knn.truncation import strongest_of_each_row
from models.progress import ticking
from models.trained import TrainedModel
from service.errors import InputError

MAX_USERS = 40_000
"""Every user is compared with every other: beyond, that takes hours on two cores."""
_BLOCK_CELLS = 1 << 24
"""Similarities, or scores, held at once: 64 MB."""


@dataclass(frozen=True, slots=True)
class Config:
    """How users are compared and how many items each is listed."""

    neighbours: int = 100
    idf: bool = True
    """Weigh an item by log(users / users of it): sharing what everybody reads says little."""
    half_life: float | None = None
    """A pair counts half for every so many items that its user read since; None: all alike."""
    weights: EventWeights = "binary"
    list_length: int = 100
    centred: bool = False
    """Take each user's mean weight off before users are compared: Pearson's correlation of users who weighed the same
    items. Says something only where weights differ."""


def train(
    dataset: Dataset,
    config: Config,
    *,
    seed: int = 0,
    progress: bool = False,
    users: npt.NDArray[np.int64] | None = None,
) -> TrainedModel:
    """List what each user's neighbours have read and they have not. Kind `lists`.

    Users are compared by the cosine of their rows (centred, if so configured); a user is no neighbour of
    themselves. The score of an item is the sum over neighbours of similarity * their weight of it (Herlocker
    et al., SIGIR 1999, without the mean: weights are no ratings). Users without events have an empty list, and
    so, where `users` (rows) are given, has everybody else. Nothing is drawn at random, so `seed` changes
    nothing. Raises InputError above MAX_USERS users with events, or where a setting is out of range.
    """
    del seed
    if config.neighbours < 1 or config.list_length < 1:
        raise InputError(f"user-kNN needs neighbours >= 1 and list_length >= 1, got {config}")
    matrix = pair_matrix(dataset, config.weights, config.half_life)
    active = np.flatnonzero(np.diff(matrix.indptr))
    if len(active) > MAX_USERS:
        raise InputError(
            f"user-kNN compares all pairs of users: {len(active)} have events, it takes up to {MAX_USERS}; "
            "leave 'userknn' out of --models"
        )
    rows: sp.csr_matrix = matrix[active].tocsr()
    unit = _unit_rows(rows, idf=config.idf, centred=config.centred)
    asked = np.arange(len(active)) if users is None else np.flatnonzero(np.isin(active, users))
    step = max(1, _BLOCK_CELLS // max(len(active), dataset.n_items, 1))
    lengths, items, scores = np.zeros(dataset.n_users, np.int64), [], []
    for start in ticking(range(0, len(asked), step), "user-kNN", progress):
        part = asked[start : start + step]
        listed = _lists(unit, rows, part, config)
        lengths[active[part]] = [len(own) for own, _ in listed]
        items += [own for own, _ in listed]
        scores += [values for _, values in listed]
    return TrainedModel(
        kind="lists",
        arrays={
            "indptr": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            "items": np.concatenate([np.empty(0, np.int32), *items]).astype(np.int32),
            "scores": np.concatenate([np.empty(0, np.float32), *scores]).astype(np.float32),
        },
        training={"algorithm": "user_knn", **asdict(config)},
    )


def _unit_rows(rows: sp.csr_matrix, *, idf: bool, centred: bool) -> sp.csr_matrix:
    weighted = rows.astype(np.float64)
    if centred:
        counts = np.diff(weighted.indptr)
        means = np.asarray(weighted.sum(axis=1)).ravel() / np.maximum(counts, 1)
        weighted.data -= np.repeat(means, counts)
    if idf:
        counts = np.bincount(rows.indices, minlength=rows.shape[1])
        weighted = weighted.multiply(np.log(rows.shape[0] / np.maximum(counts, 1))).tocsr()
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    scaled = sp.diags(1.0 / np.where(norms > 0, norms, 1.0)) @ weighted
    return sp.csr_matrix(scaled.astype(np.float32))


def _lists(
    unit: sp.csr_matrix, rows: sp.csr_matrix, part: npt.NDArray[np.int64], config: Config
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    alike = (unit[part] @ unit.T).toarray()
    alike[np.arange(len(alike)), part] = 0.0
    indptr, indices, weights = strongest_of_each_row([alike], config.neighbours)
    neighbours = sp.csr_matrix((weights, indices, indptr), shape=alike.shape)
    scores = (neighbours @ rows).toarray()
    own = rows[part].tocoo()
    scores[own.row, own.col] = 0.0
    listed = []
    for values in scores:
        found = np.flatnonzero(values > 0)
        best = found[np.argsort(-values[found], kind="stable")[: config.list_length]]
        listed.append((best, values[best]))
    return listed
