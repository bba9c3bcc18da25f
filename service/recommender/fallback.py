"""The one place where a slate is completed: personal, then the segment's popular items, then everybody's."""

from __future__ import annotations

import numpy as np

from service.domain import Candidates, ItemRows, Scores, Source
from service.recommender.filters import Eligible
from service.recommender.retrieval import PopularRetriever
from service.recommender.user_state import UserState


def complete(
    candidates: Candidates | None, k: int, user: UserState, rules: Eligible, popular: PopularRetriever
) -> tuple[ItemRows, Scores, Source, int, Source]:
    """Exactly k items while the eligible catalogue has k.

    Returns item rows, scores, the source of the leading places, how many those are, and the source of the rest.
    """
    if candidates is None or not len(candidates.item_rows):
        segment = popular.segment_of(user)
        candidates = popular.walk(segment, k, rules, frozenset())
        if segment and not len(candidates.item_rows):
            candidates = popular.walk(0, k, rules, frozenset())
    rows, scores = candidates.item_rows, candidates.scores
    if len(rows) > k:
        rows, scores = rows[:k], scores[:k]
    n_leading, top_up = len(rows), candidates.source
    if n_leading == k:
        return rows, scores, top_up, k, top_up
    segment = popular.segment_of(user)
    steps = [0] if segment == 0 or candidates.source == "segment_popular" else [segment, 0]
    for step in steps:
        if len(rows) >= k:
            break
        more = popular.walk(step, k - len(rows), rules, set(rows.tolist()))
        if len(more.item_rows):
            rows = np.concatenate((rows, more.item_rows))
            scores = np.concatenate((scores, more.scores))
            top_up = more.source
    return rows, scores, candidates.source, n_leading, top_up
