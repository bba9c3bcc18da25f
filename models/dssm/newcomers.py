"""Who answers a user of whom only features are known: the tower, or what is popular with users alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.build.scoring import Exam, ndcg
from models.data.dataset import Dataset
from models.data.splits import places_from_start
from models.popularity import popularity
from models.popularity.segments import segment_choices
from models.trained import TrainedModel

MAX_USERS = 2_000
LEAST_USERS = 30
MARGIN = 1.0
"""Standard errors of the mean difference by which the tower must be better."""


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Who answers them, and the mean NDCG@10 of each on users whose history was hidden; None where not measured."""

    answered_by: Literal["tower", "popular"]
    tower: float | None = None
    popular: float | None = None


def sample(histories_lengths: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.int64]:
    """Users to hide the history of, ascending."""
    active = np.flatnonzero(histories_lengths)
    chosen = np.random.default_rng(seed).choice(active, min(MAX_USERS, len(active)), replace=False)
    return np.sort(chosen).astype(np.int64)


def compare(model: TrainedModel, dataset: Dataset) -> Newcomers:
    """Judge `model`, whose user vectors are of features alone, by what these users have read first.

    It has to beat the best of the segmentations that builds try, each by what is read most and by what is read
    first, and both have learned from these very users' events; so what is said of either is a little too good,
    and alike.
    """
    users = model.arrays["user_rows"].astype(np.int64)
    early = (
        dataset if dataset.times is None else dataset.select(places_from_start(dataset) < popularity.NEW_FOR)
    )
    relevant = early.matrix(binary=True)[users].tocsr()
    told = np.diff(relevant.indptr) > 0
    if told.sum() < LEAST_USERS:
        return Newcomers("popular")
    exam = Exam(users[told], np.zeros(int(told.sum()) + 1, np.int64), np.zeros(0, np.int32), relevant[told])
    own = ndcg(model, exam)
    others = [
        ndcg(popularity.train(dataset, popularity.Config(segments=columns, first=first)), exam)
        for columns in segment_choices(dataset)
        for first in ((None,) if dataset.times is None else (None, popularity.NEW_FOR))
    ]
    best = max(others, key=lambda gains: float(gains.mean()))
    difference = own - best
    error = float(difference.std()) / np.sqrt(len(difference))
    better = float(difference.mean()) > MARGIN * error
    return Newcomers("tower" if better else "popular", float(own.mean()), float(best.mean()))
