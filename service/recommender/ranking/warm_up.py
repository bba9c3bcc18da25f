"""Before a two_stage model serves: its golden queries are answered, and what its stages cost is measured."""

from __future__ import annotations

import math

import numpy as np

from service.bundle.reader import Bundle, ModelData
from service.domain import Clock, Deadline
from service.errors import BundleRefused, StageUnavailable
from service.recommender.filters import Eligible
from service.recommender.ranking.ranker import TwoStage
from service.recommender.user_state import UserState

_WARM_UPS = 16
_TOLERANCE = 1e-3
_ALIKE = 0.9
"""Share of golden places that must hold the promised item: a feature that rounds otherwise on another processor may
cross a tree's threshold, another's trees cross them all."""


def check_golden(data: ModelData, ranking: TwoStage, bundle: Bundle) -> None:
    """Ask the golden queries, what users have seen left out. Raises BundleRefused."""
    golden = data.golden
    assert golden is not None  # the reader refuses a two_stage model without them
    for number, row in enumerate(golden.user_rows):
        history = bundle.history_of(row)
        try:
            answered = ranking.exactly(UserState(row, history, live=False), Eligible(history, None))
        except StageUnavailable:
            continue  # a source can't run here; requests are told so, one by one
        promised = dict(zip(golden.item_rows[number], golden.scores[number], strict=True))
        kept = 0
        if answered is not None:
            given = zip(answered.item_rows.tolist(), answered.scores.tolist(), strict=True)
            kept = sum(
                math.isclose(promised.get(item, math.inf), score, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
                for item, score in given
            )
        if kept < _ALIKE * len(promised):
            raise BundleRefused(
                bundle.manifest.golden, f"{data.name!r} answers golden query {number} with other scores"
            )


def warm_up(ranking: TwoStage, bundle: Bundle, clock: Clock) -> tuple[float, float]:
    """Answer some users; returns the dearest gathering's and the dearest ranking's seconds (the first left out)."""
    rows = np.linspace(0, len(bundle.user_ids) - 1, min(_WARM_UPS, len(bundle.user_ids))).astype(int).tolist()
    deadline = Deadline(math.inf, clock=clock)
    gathering, ranked = [0.0], [0.0]
    for row in rows[:1] + rows:
        user = UserState(row, bundle.history_of(row), live=False)
        began = clock()
        pool, _ = ranking.gatherer.gather(user, Eligible(user.history, None), deadline)
        gathered = clock()
        if pool is not None:
            ranking.rank(user, pool)
            ranked.append(clock() - gathered)
        gathering.append(gathered - began)
    return max(gathering[2:], default=0.0), max(ranked[2:], default=0.0)
