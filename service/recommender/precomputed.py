"""Candidates computed beforehand: what a model's retriever answered each user as the bundle knows them.

A list stands for its user only while nothing of the question has changed: the user is as the bundle has them (what
they did since, or a history sent along, makes them another), what they have seen is what is left out, no filter is
set, and no more is asked for than was computed. Else the retriever searches, as it would without lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from service.domain import Candidates, ItemRows
from service.recommender.filters import EVERYTHING, Eligible
from service.recommender.user_state import UserState

if TYPE_CHECKING:
    from service.bundle.reader import Bundle
    from service.recommender.retrieval import Retriever

ROLES = ("precomputed_indptr", "precomputed_items", "precomputed_scores")
KINDS = ("factors", "item_item")
"""Kinds of models whose candidates depend on nothing but the user and what they have seen."""
MAX_WIDTH = 1000


class PrecomputedLists:
    """Lists in a CSR by user row: up to `width` items a user, best first; an empty one where a search must answer."""

    __slots__ = ("_indptr", "_items", "_scores", "width")

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], width: int) -> None:
        indptr, self._items, self._scores = (arrays[role] for role in ROLES)
        self._indptr = np.ascontiguousarray(indptr).data.toreadonly()
        self.width = width

    def find(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """What the retriever would answer; None where the list does not say."""
        row = user.row
        if (
            row < 0
            or user.live
            or n > self.width
            or rules.mask is not None
            or rules.excluded is not user.history
        ):
            return None
        begin, end = self._indptr[row], self._indptr[row + 1]
        if begin == end:
            return None
        end = min(end, begin + n)
        return Candidates(self._items[begin:end], self._scores[begin:end], "personal", True)


def precompute(
    retriever: Retriever, bundle: Bundle, width: int, tell: Callable[[int], None] = lambda _: None
) -> dict[str, npt.NDArray[Any]]:
    """Ask a retriever for every user of a bundle; returns arrays by role. `tell` is called with each row done.

    int64 (n_users + 1,), int32 (total,), float32 (total,). Users whose answer is not personal have an empty list.
    """
    items: list[ItemRows] = []
    scores: list[npt.NDArray[np.float32]] = []
    lengths = np.zeros(len(bundle.user_ids) + 1, np.int64)
    for row in range(len(bundle.user_ids)):
        history = bundle.history_of(row)
        rules = Eligible(history, None) if len(history) else EVERYTHING
        found = retriever.retrieve(UserState(row, history, live=False), width, rules)
        if found is not None and found.source == "personal" and found.filtered:
            items.append(found.item_rows.astype(np.int32))
            scores.append(found.scores.astype(np.float32))
            lengths[row + 1] = len(found.item_rows)
        tell(row)
    return {
        "precomputed_indptr": np.cumsum(lengths),
        "precomputed_items": np.concatenate([np.empty(0, np.int32), *items]),
        "precomputed_scores": np.concatenate([np.empty(0, np.float32), *scores]),
    }
