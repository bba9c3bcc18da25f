"""The popular lists with their heads at hand: what most requests ask of them is answered without touching arrays."""

from __future__ import annotations

import numpy as np

from service.bundle.reader import ModelData
from service.domain import Candidates
from service.recommender.filters import EVERYTHING, Eligible
from service.recommender.retrieval import PopularRetriever

HEAD = 512
"""Enough for a slate and as many items as most users have seen."""
_MOST_KEPT = 4096


class PopularHeads(PopularRetriever):
    """The same answers. What it keeps is made at the first question for a list, and never changes."""

    def __init__(self, model: ModelData, head: int = HEAD) -> None:
        """`head`: items of a list that are kept as plain integers."""
        super().__init__(model)
        self._length = head
        self._heads: dict[int, tuple[Candidates, list[int]]] = {}
        self._for_all: dict[tuple[int, int], Candidates] = {}
        """By list and n: what those are shown who have seen nothing."""

    def walk(self, segment: int, n: int, rules: Eligible, taken: frozenset[int] | set[int]) -> Candidates:
        """First n eligible items of a segment's list that are not taken, in the list's order."""
        if rules.mask is not None or taken:
            return super().walk(segment, n, rules, taken)
        excluded = rules.excluded
        if not len(excluded):
            return self._for_all.get((segment, n)) or self._first(segment, n)
        head, items = self._heads.get(segment) or self._head(segment)
        if n + len(excluded) > len(items):
            return super().walk(segment, n, rules, taken)
        seen = set(excluded.tolist())
        places: list[int] = []
        for place, item in enumerate(items):
            if item not in seen:
                places.append(place)
                if len(places) == n:
                    break
        chosen = np.array(places)
        return Candidates(head.item_rows.take(chosen), head.scores.take(chosen), head.source, filtered=True)

    def _first(self, segment: int, n: int) -> Candidates:
        first = super().walk(segment, n, EVERYTHING, frozenset())
        if len(self._for_all) < _MOST_KEPT:
            self._for_all[segment, n] = first
        return first

    def _head(self, segment: int) -> tuple[Candidates, list[int]]:
        head = self._first(segment, self._length)
        kept = self._heads[segment] = head, head.item_rows.tolist()
        return kept
