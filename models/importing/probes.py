"""Questions to measure a search with, where no user has a vector: what a request with a history would ask."""

from __future__ import annotations

import numpy as np

from models.build.index import Probes, prepared
from models.data.dataset import Dataset
from models.history import unique_history
from models.trained import TrainedModel
from service.recommender.fold_in import mean_vector

_INVENTED_LENGTH = 5
_MOST = 1000


def probes_of(dataset: Dataset, model: TrainedModel, *, seed: int) -> Probes:
    """Mean vectors of users' histories; of random items (user row -1) where no history names an item with a vector."""
    assert model.space is not None
    vectors = prepared(model.arrays["item_vectors"], "item_vectors", model.space)
    place_of = np.full(dataset.n_items, -1, np.int64)
    place_of[model.arrays["item_rows"]] = np.arange(len(vectors))
    generator = np.random.default_rng(seed)
    indptr, items = unique_history(dataset)
    places = place_of[items]
    owner = np.repeat(np.arange(dataset.n_users), np.diff(indptr))[places >= 0]
    users = np.unique(owner)
    if len(users) > _MOST:
        users = np.sort(generator.choice(users, _MOST, replace=False))
    histories = [(user, places[indptr[user] : indptr[user + 1]]) for user in users.tolist()]
    if not histories:
        length = min(_INVENTED_LENGTH, len(vectors))
        histories = [(-1, generator.choice(len(vectors), length, replace=False)) for _ in range(_MOST)]
    rows, queries = [], []
    for user, history in histories:
        query = mean_vector(vectors, history[history >= 0], unit=model.space == "cosine")
        if query.any():
            rows.append(user)
            queries.append(query)
    return Probes(np.array(rows, np.int32), np.array(queries, np.float32).reshape(-1, vectors.shape[1]))
