"""The function that the idiomatic service, LitServe and BentoML are built around: hnswlib over the bundle's vectors.

`BENCH_BUNDLE`: the bundle's folder; `BENCH_MODEL`: its model.
"""

from __future__ import annotations

import os
from pathlib import Path

import hnswlib

from loadtest.bench.vectors import read_vectors

K = 10
EF = 64


class Nearest:
    """The nearest items of a known user; nothing they have seen is left out."""

    def __init__(self) -> None:
        vectors = read_vectors(Path(os.environ["BENCH_BUNDLE"]), os.environ["BENCH_MODEL"])
        self._users = vectors.users
        self._row_of = {int(user): row for row, user in enumerate(vectors.user_ids)}
        self._index = hnswlib.Index(space=vectors.space, dim=vectors.items.shape[1])
        self._index.init_index(len(vectors.items), M=16, ef_construction=200, random_seed=1)
        self._index.add_items(vectors.items, vectors.item_ids, num_threads=1)
        self._index.set_ef(EF)
        self._index.set_num_threads(1)

    def of(self, user_id: int) -> list[int] | None:
        """Item ids, best first; None for a user nobody knows."""
        row = self._row_of.get(user_id)
        if row is None:
            return None
        labels, _ = self._index.knn_query(self._users[row], k=K)
        items: list[int] = labels[0].tolist()
        return items
