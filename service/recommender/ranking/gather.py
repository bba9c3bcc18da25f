"""Gathering: ask several sources within one deadline and merge what they find into a pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from service.bundle.two_stage import SourceSpec
from service.domain import Deadline
from service.errors import StageUnavailable
from service.recommender.costs import StageCost
from service.recommender.filters import Eligible
from service.recommender.ranking.pool import Pool, union
from service.recommender.ranking.sources import Found, PoolSource, source_of
from service.recommender.retrieval import PopularRetriever, Retriever
from service.recommender.user_state import UserState

_POPULAR = frozenset({"segment_popular", "popular"})


class Asked(NamedTuple):
    """A source, what it may bring, what that costs, and what `degraded` calls it."""

    source: PoolSource
    quota: int
    cost: StageCost
    name: str


class Gatherer:
    """Fills pools. `sources` stand best first: unranked, the first one's list leads.

    `retrievers`: by name, `popular` among them. `exact`: vectors are searched exactly, whatever else serves.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Retriever],
        sources: Sequence[SourceSpec],
        n_candidates: int,
        *,
        exact: bool = False,
    ) -> None:
        self.sources = tuple(spec.model for spec in sources)
        self.n_candidates = n_candidates
        popular = retrievers["popular"]
        assert isinstance(popular, PopularRetriever)  # the reader refuses a bundle without it
        self._n_items = popular.n_items
        self.asked = tuple(
            Asked(
                source_of(retrievers[spec.model], self._n_items, exact=exact, history=spec.history),
                spec.quota,
                StageCost(),
                f"retrieve:{spec.model}",
            )
            for spec in sources
        )

    def gather(
        self,
        user: UserState,
        rules: Eligible,
        deadline: Deadline | None = None,
        *,
        n: int = 0,
        skip: Collection[str] = (),
    ) -> tuple[Pool | None, tuple[str, ...]]:
        """Ask each source that still fits before the deadline (without one, all of them) and that `skip` doesn't name.

        A pool may hold `n` items if that is more than `n_candidates`, as far as quotas go.
        Returns the pool, which holds nothing that the rules exclude, or None where no source but popularity knows the
        user; and what `degraded` says of the sources left out.
        """
        deadline = deadline or Deadline.none()
        answers: list[Found | None] = []
        left_out: tuple[str, ...] = ()
        began = deadline.now()
        for source, quota, cost, name in self.asked:
            found = None
            if name in skip:
                pass  # as planned: nothing is missing
            elif deadline.fits(cost.upper, began):
                try:
                    found = source.find(user, quota, rules)
                except StageUnavailable:
                    left_out = (*left_out, name)
                ended = deadline.now()
                cost.observe(ended - began)
                began = ended
            else:
                cost.skipped()
                left_out = (*left_out, name)
            answers.append(found)
        return self._merged(answers, max(n, self.n_candidates)), left_out

    def _merged(self, answers: Sequence[Found | None], n: int) -> Pool | None:
        origin = next((one.origin for one in answers if one is not None and one.origin not in _POPULAR), None)
        if origin is None:
            return None
        if not any(one is not None and len(one.item_rows) for one in answers):
            return None
        rows, ranks = union([None if one is None else one.item_rows for one in answers], n, self._n_items)
        scores = np.empty((len(answers), len(rows)), np.float32)
        for column, found in zip(scores, answers, strict=True):
            column[:] = np.nan if found is None else found.score_of(rows)
        return Pool(self.sources, rows, scores.T, ranks, origin)
