"""Candidate retrieval: one retriever a kind of model, all behind one Protocol."""

from __future__ import annotations

from bisect import bisect_left
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import RetrieverName
from service.bundle.reader import Bundle, ModelData
from service.domain import Candidates, ItemRows, Scores, Source
from service.native import Sums, first_eligible
from service.recommender.exact import Cells, ExactIndex
from service.recommender.filters import Eligible
from service.recommender.fold_in import AlsFoldIn, mean_vector
from service.recommender.recency import fading, half_life_in, telling
from service.recommender.tower import Tower
from service.recommender.user_state import UserState

Vector = npt.NDArray[np.float32]
_NARROW = 0.1
"""Below this share of eligible items a graph walk finds too few: score the eligible ones exactly."""
_MOST_HEADS = 4096


class Retriever(Protocol):
    """Finds the best items for a user among the eligible ones."""

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """Up to n candidates, best first; None when the model knows nothing of this user."""


class UserVectors:
    """Where a user's vector comes from: trained, computed by the tower, or solved from the history."""

    def __init__(self, model: ModelData, position_of: ItemRows) -> None:
        self._vectors = model.arrays["user_vectors"]
        rows = model.arrays["user_rows"]
        self._rows = np.ascontiguousarray(rows).data.toreadonly()
        self._dense = len(rows) > 0 and int(rows[-1]) == len(rows) - 1
        self._count = len(rows)
        self._items, self._position_of = model.arrays["item_vectors"], position_of
        self._unit, self._space = model.entry.space == "cosine", model.entry.space
        self.tower = None if model.tower is None else Tower(model.tower, unit=self._unit)
        settings = model.entry.parameters.get("fold_in")
        self._fold_in = None
        if settings is not None and "gram" in model.arrays:
            self._fold_in = AlsFoldIn(
                self._items, model.arrays["gram"],
                regularization=float(settings["regularization"]), alpha=float(settings["alpha"]),
                half_life=half_life_in(settings, "half_life"),
            )  # fmt: skip

    def of(self, user: UserState) -> tuple[Vector, Source] | None:
        """The vector, float32 (dim,), and what it rests on; None for a user of whom nothing that counts is known.

        Raises StageUnavailable where the tower should answer and can't.
        """
        if user.row >= 0 and not user.live:
            if self._dense:
                if user.row < self._count:
                    return self._vectors[user.row], "personal"
            else:
                at = bisect_left(self._rows, user.row)
                if at < self._count and self._rows[at] == user.row:
                    return self._vectors[at], "personal"
        if self.tower is not None and self.tower.reads_history:
            return self.tower.vector(user)
        if len(user.history) == 0:
            return None if self.tower is None else self.tower.vector(user)
        positions = self._position_of[user.history]
        positions = positions[positions >= 0]
        if len(positions) == 0:
            return None if self.tower is None else self.tower.vector(user)
        if self._fold_in is not None:
            return self._fold_in.solve(positions), "fold_in"
        vector = mean_vector(self._items, positions, unit=self._unit)
        return (vector, "fold_in") if bool(vector.any()) else None

    def parts(
        self, source: Source, positions: npt.NDArray[np.integer], target: Vector
    ) -> npt.NDArray[np.float64] | None:
        """What each item at `positions` adds to the score of an item's vector: float64 (n,).

        None where a score is no sum over the history: the user's vector was trained, or computed by a tower. `source`:
        as `of` gave it.
        """
        if self._fold_in is not None:
            return self._fold_in.parts(positions, target)
        if source != "fold_in" or (self.tower is not None and self.tower.reads_history):
            return None
        items = self._items[positions].astype(np.float64)
        mean = items.mean(axis=0)
        length = float(np.linalg.norm(mean)) if self._unit else 1.0
        each: npt.NDArray[np.float64] = (items @ target.astype(np.float64)) / (len(items) * length)
        return 2 * each if self._space == "l2" else each


class FactorsRetriever:
    """Nearest items to the user's vector by exact search."""

    name: ClassVar[RetrieverName] = "exact"

    def __init__(self, model: ModelData, bundle: Bundle, *, cells: Cells | None = None) -> None:
        self.item_rows: ItemRows = np.ascontiguousarray(model.arrays["item_rows"])
        self.position_of = np.full(len(bundle.item_ids), -1, np.int32)
        self.position_of[self.item_rows] = np.arange(len(self.item_rows), dtype=np.int32)
        assert model.entry.space is not None  # the reader refuses a factors model without one
        self.exact = ExactIndex(
            model.arrays["item_vectors"], model.entry.space, self.item_rows, self.position_of, cells
        )
        self.users = UserVectors(model, self.position_of)

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """Up to n candidates, best first; None for a user without vector and history."""
        found = self.users.of(user)
        if found is None:
            return None
        vector, source = found
        rows, scores = self.search(vector, n, rules)
        return Candidates(rows, scores, source, filtered=True)

    def search(self, vector: Vector, n: int, rules: Eligible) -> tuple[ItemRows, Scores]:
        """The best n eligible items' rows, best first, with their scores."""
        return self.exact.search(vector, n, rules.excluded, rules.mask)


class IvfRetriever(FactorsRetriever):
    """Nearest items among those in the cells near the user's vector."""

    name = "ivf"

    def __init__(self, model: ModelData, bundle: Bundle) -> None:
        retrieval = model.entry.retrieval
        if retrieval is None or retrieval.ivf is None:
            raise ValueError(f"model {model.name!r} has no cells")
        cells = Cells(model.arrays["cell_centroids"], model.arrays["cell_starts"])
        super().__init__(model, bundle, cells=cells)
        self._n_probe = retrieval.ivf.n_probe

    def search(self, vector: Vector, n: int, rules: Eligible) -> tuple[ItemRows, Scores]:
        """The best n eligible items' rows that the nearest cells hold, with their scores."""
        return self.exact.search_cells(vector, n, rules.excluded, rules.mask, self._n_probe)


class HnswRetriever(FactorsRetriever):
    """Nearest items by the graph index: over-fetch, filter, and go exact where the graph returns too few."""

    name = "hnsw"

    def __init__(self, model: ModelData, bundle: Bundle) -> None:
        super().__init__(model, bundle)
        if model.index is None:
            raise ValueError(f"model {model.name!r} has no index")
        self._index = model.index.load()
        self._l2 = model.entry.space == "l2"

    def search(self, vector: Vector, n: int, rules: Eligible) -> tuple[ItemRows, Scores]:
        """The best n eligible items' rows that the graph finds, with their scores."""
        total = self.exact.size
        wanted = n + len(rules.excluded)
        if rules.mask is not None:
            share = float(rules.mask[self.item_rows].mean())
            if share < _NARROW:
                return super().search(vector, n, rules)
            wanted = int(wanted / share) + 1
        if wanted * 4 >= total:
            return super().search(vector, n, rules)
        try:
            labels, distances = self._index.knn_query(vector, k=wanted, num_threads=1)
        except RuntimeError:  # hnswlib raises when its walk ends with fewer than k (hnswlib#444, #608)
            return super().search(vector, n, rules)
        rows = self.item_rows.take(labels[0].astype(np.int64))
        # A byte an item beats a search of `excluded` a candidate.
        dropped = np.zeros(len(self.position_of), bool)
        dropped[rules.excluded] = True
        keep = ~dropped[rows]
        if rules.mask is not None:
            keep &= rules.mask[rows]
        rows = rows[keep][:n]
        if len(rows) < n:
            return super().search(vector, n, rules)
        distances = distances[0][keep][:n]
        return rows, -distances if self._l2 else 1.0 - distances


class ItemItemRetriever:
    """Sum of the history items' rows of an item-item matrix (item-kNN; EASE, Steck, WWW 2019, eq. 3).

    A row counts by its item's recency where the model says how fast that fades. `scores(history)`: float32
    (n_items,), the sums, -inf where a sparse matrix says nothing of an item.
    """

    def __init__(self, model: ModelData, bundle: Bundle) -> None:
        n_items = len(bundle.item_ids)
        self._dense = model.arrays.get("dense")
        half_life = half_life_in(model.entry.parameters, "history_half_life")
        self._recency = (
            None if half_life is None else fading(telling(half_life), half_life).astype(np.float32)
        )
        if self._dense is None:
            self._indptr, self._indices = model.arrays["indptr"], model.arrays["indices"]
            self._weights = model.arrays["weights"]
            self._sums = Sums(n_items, self._recency, self._indptr, self._indices, self._weights)
        else:
            self._sums = Sums(n_items, self._recency, dense=self._dense)
        self.scores = self._sums.scores

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """Up to n candidates, best first; None for a user whose history leads nowhere."""
        if len(user.history) == 0:
            return None
        rows, scores = self._sums.best(user.history, n, rules.excluded, rules.mask)
        if len(rows) == 0:
            return None
        return Candidates(rows, scores, "fold_in" if user.live else "personal", filtered=True)

    def parts(self, history: ItemRows, item_row: int) -> npt.NDArray[np.float64]:
        """What each of the newest items that count adds to an item's score: float64 (m,), their sum is the score."""
        recency = self._recency
        if recency is not None:
            history = history[-len(recency) :]
        if self._dense is not None:
            entries = self._dense[history, item_row].astype(np.float64)
        else:
            entries = np.zeros(len(history))
            for place, row in enumerate(history.tolist()):
                begin, end = int(self._indptr[row]), int(self._indptr[row + 1])
                entries[place] = self._weights[begin:end][self._indices[begin:end] == item_row].sum()
        parts: npt.NDArray[np.float64] = entries if recency is None else entries * recency[-len(history) :]
        return parts

    def weights_between(self, history: ItemRows, rows: ItemRows) -> Scores:
        """float32 (len(history), len(rows)): the matrix's entry of each pair; 0 where it has none."""
        return self._sums.pairs(np.ascontiguousarray(history), rows)


class ListsRetriever:
    """Lists computed beforehand, one a user."""

    def __init__(self, model: ModelData) -> None:
        self._indptr, self._items, self._scores = (
            model.arrays[role] for role in ("indptr", "items", "scores")
        )

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:  # noqa: ARG002 (the Protocol's)
        """The user's list as it is (the filter stage drops from it); None for a user without one."""
        if user.row < 0:
            return None
        begin, end = int(self._indptr[user.row]), int(self._indptr[user.row + 1])
        if begin == end:
            return None
        return Candidates(self._items[begin:end], self._scores[begin:end], "personal")


class PopularRetriever:
    """Most popular items of the user's segment, then of everybody.

    Where the model has lists for users without a history, each segment has a second one, `first_lists` behind it.
    """

    def __init__(self, model: ModelData) -> None:
        self._indptr, self._items, self._scores = (
            np.ascontiguousarray(model.arrays[role]) for role in ("indptr", "items", "scores")
        )
        self._heads: dict[tuple[int, int], Candidates] = {}
        """By list and n: what those get of whom nothing was seen. They never change."""
        # Reading a memoryview gives plain integers, without numpy's scalars between.
        self._starts = self._indptr.data.toreadonly()
        self._segment_of = np.ascontiguousarray(model.arrays["user_segment"]).data.toreadonly()
        self._first_lists = int(model.entry.parameters.get("first_lists", 0))

    def segment_of(self, user: UserState) -> int:
        """Number of the list that is the user's; 0 is everybody's."""
        segment: int = self._segment_of[user.row] if user.row >= 0 else 0
        return segment if len(user.history) else segment + self._first_lists

    def source_of(self, segment: int) -> Source:
        """Name a list's source: everybody's are `popular`, of those with a history as of those without."""
        return "popular" if segment in (0, self._first_lists) else "segment_popular"

    @property
    def n_items(self) -> int:
        """Of the catalogue: everybody's list names all of it."""
        return int(self._indptr[1])

    def listed(self, segment: int, n: int | None) -> ItemRows:
        """The first n of a segment's list, whoever has seen them; None: all of it."""
        begin, end = int(self._indptr[segment]), int(self._indptr[segment + 1])
        items: ItemRows = self._items[begin : end if n is None else min(begin + n, end)]
        return items

    def scores_of_all(self) -> Scores:
        """float32 (n_items,): everybody's score of each item."""
        rows = self._items[: int(self._indptr[1])]
        scores = np.empty(len(rows), np.float32)
        scores[rows] = self._scores[: len(rows)]
        return scores

    def place_of(self, item_row: int, segment: int) -> int | None:
        """An item's place, from 1, in a segment's list; None where it isn't in it."""
        begin, end = int(self._indptr[segment]), int(self._indptr[segment + 1])
        found = np.flatnonzero(self._items[begin:end] == item_row)
        return int(found[0]) + 1 if len(found) else None

    def score_of(self, item_row: int, segment: int) -> float | None:
        """An item's score in a segment's list; None where it isn't in it."""
        place = self.place_of(item_row, segment)
        return None if place is None else float(self._scores[int(self._indptr[segment]) + place - 1])

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """Up to n of the segment's items; all of everybody's list where the user has no segment."""
        segment = self.segment_of(user)
        return self.walk(segment, n, rules, frozenset())

    def walk(self, segment: int, n: int, rules: Eligible, taken: frozenset[int] | set[int]) -> Candidates:
        """First n eligible items of a segment's list that are not taken, in the list's order."""
        excluded, mask = rules.excluded, rules.mask
        if taken:
            excluded = np.concatenate((excluded, np.fromiter(taken, np.int32, len(taken))))
        elif mask is None and not len(excluded):
            return self._heads.get((segment, n)) or self._head(segment, n)
        begin, end = self._starts[segment], self._starts[segment + 1]
        rows, scores = first_eligible(self._items, self._scores, begin, end, n, excluded, mask)
        return Candidates(rows, scores, self.source_of(segment), True)

    def _head(self, segment: int, n: int) -> Candidates:
        begin = self._starts[segment]
        end = min(self._starts[segment + 1], begin + n)
        head = Candidates(self._items[begin:end], self._scores[begin:end], self.source_of(segment), True)
        if len(self._heads) < _MOST_HEADS:
            self._heads[segment, n] = head
        return head
