"""The popular lists as they are asked most: by who has seen nothing, and by who has seen something."""

from __future__ import annotations

import numpy as np

from service.bundle.reader import ModelData
from service.domain import Candidates
from service.native import first_eligible
from service.recommender.filters import EVERYTHING, Eligible
from service.recommender.retrieval import PopularRetriever

_MOST_KEPT = 4096


class PopularHeads(PopularRetriever):
    """The same answers. What those are shown who have seen nothing is kept, and never changes."""

    def __init__(self, model: ModelData) -> None:
        super().__init__(model)
        self._items, self._scores = np.ascontiguousarray(self._items), np.ascontiguousarray(self._scores)
        self._for_all: dict[tuple[int, int], Candidates] = {}
        """By list and n."""

    def walk(self, segment: int, n: int, rules: Eligible, taken: frozenset[int] | set[int]) -> Candidates:
        """First n eligible items of a segment's list that are not taken, in the list's order."""
        if taken:
            return super().walk(segment, n, rules, taken)
        excluded, mask = rules.excluded, rules.mask
        if mask is None and not len(excluded):
            return self._for_all.get((segment, n)) or self._first(segment, n)
        begin, end = self._starts[segment], self._starts[segment + 1]
        rows, scores = first_eligible(self._items, self._scores, begin, end, n, excluded, mask)
        return Candidates(rows, scores, self.source_of(segment), True)

    def _first(self, segment: int, n: int) -> Candidates:
        first = super().walk(segment, n, EVERYTHING, frozenset())
        if len(self._for_all) < _MOST_KEPT:
            self._for_all[segment, n] = first
        return first
