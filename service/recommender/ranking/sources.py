"""Sources of a pool: what a retriever finds for a user, and what it says of items that others found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from service.domain import ItemRows, Scores, Source
from service.native import top
from service.recommender.filters import Eligible, Mask
from service.recommender.retrieval import (
    FactorsRetriever,
    ItemItemRetriever,
    ListsRetriever,
    PopularRetriever,
    Retriever,
)
from service.recommender.user_state import UserState


@dataclass(frozen=True, slots=True)
class Found:
    """item_rows: int32 (n,), best first, eligible; none where all that it knows is left out. `origin`: what the user is
    known by; popular ones know nobody.

    score_of(rows): float32 (len(rows),), the source's scores of any items; NaN where it knows nothing.
    """

    item_rows: ItemRows
    origin: Source
    score_of: Callable[[ItemRows], Scores]


class PoolSource(Protocol):
    """One retriever's part in a pool."""

    def find(self, user: UserState, n: int, rules: Eligible) -> Found | None:
        """Up to n items; None where the model knows nothing of this user. Raises StageUnavailable."""


def source_of(
    retriever: Retriever, n_items: int, *, exact: bool = False, history: int | None = None
) -> PoolSource:
    """Make a pool's source of a retriever. Raises TypeError for a kind that can't be one.

    `exact`: vectors are searched exactly, whatever the retriever does. `history`: newest items that an item-to-item
    model reads; None: as many as it does alone.
    """
    if isinstance(retriever, FactorsRetriever):
        return _Factors(retriever, exact=exact)
    if isinstance(retriever, ItemItemRetriever):
        return _ItemItem(retriever, history)
    if isinstance(retriever, ListsRetriever):
        return _Lists(retriever, n_items)
    if isinstance(retriever, PopularRetriever):
        return _Popular(retriever)
    raise TypeError(f"{type(retriever).__name__} is no source of a pool")


class _Factors:
    def __init__(self, retriever: FactorsRetriever, *, exact: bool) -> None:
        self._of = retriever
        self._search = partial(FactorsRetriever.search, retriever) if exact else retriever.search

    def find(self, user: UserState, n: int, rules: Eligible) -> Found | None:
        found = self._of.users.of(user)
        if found is None:
            return None
        vector, origin = found
        rows, _ = self._search(vector, n, rules)
        return Found(rows, origin, partial(self._of.exact.scores, vector))


class _ItemItem:
    def __init__(self, retriever: ItemItemRetriever, newest: int | None) -> None:
        self._of, self._newest = retriever, newest

    def find(self, user: UserState, n: int, rules: Eligible) -> Found | None:
        if len(user.history) == 0:
            return None
        scores = self._of.scores(user.history if self._newest is None else user.history[-self._newest :])

        def score_of(rows: ItemRows) -> Scores:
            told = scores[rows]
            told[told == -np.inf] = np.nan
            return told

        best, _ = top(scores, n, rules.excluded, rules.mask)
        return Found(best, "fold_in" if user.live else "personal", score_of)


class _Lists:
    """A list scores what it names and nothing else."""

    def __init__(self, retriever: ListsRetriever, n_items: int) -> None:
        self._of, self._n_items = retriever, n_items

    def find(self, user: UserState, n: int, rules: Eligible) -> Found | None:
        whole = self._of.retrieve(user, n, rules)
        if whole is None:
            return None
        kept = whole.item_rows[open_to(rules, self._n_items)[whole.item_rows]]
        by_row = whole.item_rows.argsort()
        named, scores = whole.item_rows[by_row], whole.scores[by_row]

        def score_of(rows: ItemRows) -> Scores:
            at = np.minimum(np.searchsorted(named, rows), len(named) - 1)
            told: Scores = np.where(named[at] == rows, scores[at], np.float32(np.nan))
            return told

        return Found(kept[:n], whole.source, score_of)


class _Popular:
    """Finds by the user's segment; scores by everybody, which names every item."""

    def __init__(self, retriever: PopularRetriever) -> None:
        self._of = retriever
        self._scores = retriever.scores_of_all()

    def find(self, user: UserState, n: int, rules: Eligible) -> Found | None:
        segment = self._of.segment_of(user)
        # No more than those left out can stand before the n-th that is let in, unless a mask leaves out more.
        reach = None if rules.mask is not None else n + len(rules.excluded)
        listed = self._of.listed(segment, reach)
        kept = listed[open_to(rules, len(self._scores))[listed]][:n]
        return Found(kept, self._of.source_of(segment), self._scores.take)


def open_to(rules: Eligible, n_items: int) -> Mask:
    """Bool (n_items,): what the rules let in. For a few items at a time a table beats a search."""
    allowed: Mask = np.ones(n_items, np.bool_) if rules.mask is None else rules.mask.copy()
    allowed[rules.excluded] = False
    return allowed
