"""What a ranker learns from: for held-out users, the pool that the line would gather and what they then read of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.forked import Answer, answers, cores, shares
from models.progress import advancing
from service.bundle.two_stage import SourceSpec
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle
from service.recommender.ranking.features import FeatureMaker, FeatureSettings, Static
from service.recommender.ranking.gather import Gatherer
from service.recommender.user_state import UserState

_WORTH_FORKING = 200
"""Users; fewer are asked sooner in this process."""
_PARTS = 2
"""Of the users, a core."""


@dataclass(frozen=True, slots=True)
class Rows:
    """features: float32 (n, n_features), named by `names`. labels: float32 (n,), 1.0 for what was read.

    groups: int64 (n_groups,), how many rows each user has, users one after the other; every user has a positive.
    user_rows: int32 (n_groups,). relevant: int64 (n_groups,), items the user went on to read, in the pool or not.
    """

    names: tuple[str, ...]
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    user_rows: npt.NDArray[np.int32]
    relevant: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: npt.NDArray[np.bool_]) -> Rows:
        """Keep some users: bool (n_groups,)."""
        rows = np.repeat(kept, self.groups)
        return Rows(
            self.names,
            self.features[rows],
            self.labels[rows],
            self.groups[kept],
            self.user_rows[kept],
            self.relevant[kept],
        )

    def only(self, names: Sequence[str]) -> Rows:
        """Keep some features, in the order given."""
        at = [self.names.index(name) for name in names]
        return Rows(
            tuple(names), self.features[:, at], self.labels, self.groups, self.user_rows, self.relevant
        )


@dataclass(frozen=True, slots=True)
class Statics:
    """Numbers of items and users, as they stood at the moment the candidates are of."""

    items: Static
    users: Static


def joined(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several moments one after the other. They have the same features."""
    return Rows(
        parts[0].names,
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.user_rows for part in parts]),
        np.concatenate([part.relevant for part in parts]),
    )


def rows_of(
    live: LiveBundle,
    later: Dataset,
    sources: Sequence[SourceSpec],
    n_candidates: int,
    statics: Statics,
    *,
    max_users: int,
    negatives: float,
    seed: int,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> Rows:
    """Ask the line's own gatherer and feature maker, with nothing but what the bundle knew.

    `live` was built from events before `later`'s, whose rows are those of its ids. What a user read is 1, the rest of
    their pool 0, of which a seeded share `negatives` is kept. Users without a history, or with nothing of what they
    went on to read in their pool, teach no order and are left out. Of more than `max_users` a seeded sample is asked;
    many are asked in forked processes.
    """
    retrievers = {name: model.retriever for name, model in live.models.items() if name != "default"}
    gatherer = Gatherer(retrievers, sources, n_candidates)
    settings = FeatureSettings(
        gatherer.sources, None if names is None else tuple(names), statics.items, statics.users
    )
    maker = FeatureMaker(live.bundle, retrievers, settings)
    read = later.matrix(binary=True)
    users = np.flatnonzero(np.diff(read.indptr) > 0)
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))

    def ask(part: slice) -> Answer:
        return _asked(live, gatherer, maker, read, users[part], negatives, seed)

    parts = shares(len(users), _PARTS * cores() if len(users) >= _WORTH_FORKING else 1)
    with advancing("pools", len(parts), progress) as advance:
        found = answers([partial(ask, part) for part in parts], on_done=lambda *_: advance())
    nothing = Rows(
        maker.names,
        np.empty((0, len(maker.names)), np.float32),
        np.empty(0, np.float32),
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.empty(0, np.int64),
    )
    return joined([nothing, *(Rows(maker.names, **one.arrays) for one in found)])


def _asked(
    live: LiveBundle,
    gatherer: Gatherer,
    maker: FeatureMaker,
    read: sp.csr_matrix,
    users: npt.NDArray[np.int64],
    negatives: float,
    seed: int,
) -> Answer:
    """Ask for some users. What a user's share of negatives is depends on the seed and the user alone."""
    width = len(maker.names)
    features, labels = [np.empty((0, width), np.float32)], [np.empty(0, np.float32)]
    groups, kept_users, relevant = [], [], []
    for row in users.tolist():
        history = live.bundle.history_of(row)
        truth = np.setdiff1d(read.indices[read.indptr[row] : read.indptr[row + 1]], history)
        if len(history) == 0 or len(truth) == 0:
            continue
        user = UserState(row, history, live=False)
        pool, _ = gatherer.gather(user, Eligible(history, None))
        if pool is None:
            continue
        positive = np.isin(pool.item_rows, truth)
        if not positive.any():
            continue
        kept = positive | (np.random.default_rng((seed, row)).random(len(pool)) < negatives)
        features.append(maker.of(user, pool)[kept])
        labels.append(positive[kept].astype(np.float32))
        groups.append(int(kept.sum()))
        kept_users.append(row)
        relevant.append(len(truth))
    return Answer(
        arrays={
            "features": np.concatenate(features),
            "labels": np.concatenate(labels),
            "groups": np.array(groups, np.int64),
            "user_rows": np.array(kept_users, np.int32),
            "relevant": np.array(relevant, np.int64),
        }
    )
