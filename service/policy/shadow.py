"""Shadow plans: run beside the answer, after it and only in idle time, and compared with what was served.

They share the event loop's thread, one run at a time, and each run has a budget: a request that arrives meanwhile waits
for the rest of one run at most. While requests come, nothing runs; what waits too long or finds the queue full is
dropped and counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Literal, NamedTuple

from prometheus_client import Counter, Histogram

from service.domain import Clock, Deadline, ItemId, Plan, Query, Slate
from service.policy.comparing import kendall_tau, overlap, rank_biased_overlap
from service.policy.experiments_file import ExperimentsFile
from service.recommender.costs import StageCost
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend
from service.recommender.plan import plan_for
from service.telemetry import Telemetry

MAX_WAITING = 64
MAX_AGE_S = 2.0
BUDGET_S = 0.005
"""Most that a run may be expected to take; a dearer one is left out."""
IDLE_S = 0.002
"""How long no request may have come before a run begins."""
COMPARED = 100
"""Leading places that are compared."""

Result = Literal["compared", "full", "late", "dear", "failed"]
_SHARES = tuple(tenth / 10 for tenth in range(11))
_CORRELATIONS = tuple(tenth / 5 - 1 for tenth in range(11))
_DELTAS = (-0.01, -0.003, -0.001, -0.0003, -0.0001, 0.0, 0.0001, 0.0003, 0.001, 0.003, 0.01)

Say = Callable[..., None]


class _Waiting(NamedTuple):
    """One answer to compare with."""

    shadow: str
    query: Query
    recent: tuple[ItemId, ...]
    live: LiveBundle
    served: Slate
    since: float


class Shadows:
    """The shadow plans of one process. Call from the event loop only."""

    def __init__(
        self,
        declared: ExperimentsFile,
        telemetry: Telemetry,
        *,
        clock: Clock = time.perf_counter,
        say: Say | None = None,
        seed: int = 0,
    ) -> None:
        """`seed`: of the draw that decides which requests are compared, where only a share is."""
        self._declared, self._clock = declared.shadows, clock
        self._say = say or (lambda *_, **__: None)
        self._random = Random(seed)  # noqa: S311 - not a secret
        self._waiting: deque[_Waiting] = deque()
        self._arrivals = self._arrivals_then = 0
        self._timer: asyncio.TimerHandle | None = None
        self._broken: set[str] = set()
        self._costs: dict[str, StageCost] = {}
        self._full = dict.fromkeys(self._declared, 0)
        registry = telemetry.registry
        self._runs = Counter(
            "reco_shadow_runs", "Answers that a shadow plan was to be compared with, by what came of it.",
            ["shadow", "result"], registry=registry,
        )  # fmt: skip
        self._overlap = _histogram(telemetry, "overlap_at_k", "Share of the slate that both show.", _SHARES)
        self._kendall = _histogram(
            telemetry, "kendall_tau", "Rank correlation of the items that both show.", _CORRELATIONS
        )
        self._rbo = _histogram(
            telemetry, "rank_biased_overlap", "Likeness of the two orders, top first.", _SHARES
        )
        self._delta = _histogram(
            telemetry, "latency_delta_seconds", "The shadow line's time less the served line's.", _DELTAS
        )

    def offer(
        self, query: Query, recent: tuple[ItemId, ...], model_name: str, live: LiveBundle, served: Slate
    ) -> None:
        """Leave an answer to be compared. Never blocks; counted when there is no room.

        `recent`: what the user did since the bundle was built, as the served line knew it.
        """
        self._arrivals += 1
        for name, shadow in self._declared.items():
            if shadow.on is not None and model_name not in shadow.on:
                continue
            if (
                shadow.share < 1 and self._random.random() >= shadow.share
            ) or shadow.model not in live.models:
                continue
            if len(self._waiting) >= MAX_WAITING:
                self._full[name] += 1
            else:
                self._waiting.append(_Waiting(name, query, recent, live, served, self._clock()))
        if self._waiting and self._timer is None:
            self._sleep()

    def flush_counts(self) -> None:
        """Hand what was counted on the request path to the metrics."""
        for name, count in self._full.items():
            if count:
                self._runs.labels(name, "full").inc(count)
                self._full[name] = 0

    def close(self) -> None:
        """Run no more; what waits is forgotten."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()

    def _sleep(self) -> None:
        self._arrivals_then = self._arrivals
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._wake)

    def _wake(self) -> None:
        """Run one, if nothing came since the last look; look again while something waits."""
        self._timer = None
        while self._waiting and self._clock() - self._waiting[0].since > MAX_AGE_S:
            self._count(self._waiting.popleft().shadow, "late")
        if self._waiting and self._arrivals == self._arrivals_then:
            one = self._waiting.popleft()
            self._count(one.shadow, self._run(one))
        if self._waiting:
            self._sleep()

    def _run(self, one: _Waiting) -> Result:
        # A cost of its own: what a shadow skips says nothing of what the served line can afford.
        cost = self._costs.get(one.shadow)
        if cost is None:
            model = one.live.resolve(self._declared[one.shadow].model)
            cost = self._costs[one.shadow] = StageCost(model.retrieve_cost.upper)
        if cost.upper > BUDGET_S:
            cost.skipped()
            return "dear"
        began = self._clock()
        try:
            query = dataclasses.replace(one.query, recent=one.recent)
            plan = self._plan(one.shadow, one.live)
            slate = recommend(query, plan, one.live, Deadline(math.inf, clock=self._clock))
        except Exception as error:  # a fault of the shadow's is nobody else's
            if one.shadow not in self._broken:
                self._broken.add(one.shadow)
                self._say("ERROR", "a shadow plan failed", shadow=one.shadow, error=error)
            return "failed"
        cost.observe(self._clock() - began)
        self._compare(one, slate)
        return "compared"

    def _plan(self, name: str, live: LiveBundle) -> Plan:
        shadow = self._declared[name]
        plan = plan_for(shadow.model, live)
        if shadow.n_candidates is not None:
            plan = dataclasses.replace(plan, n_candidates=shadow.n_candidates)
        if shadow.exploration is not None:
            plan = dataclasses.replace(plan, exploration=shadow.exploration.settings())
        if shadow.rerank is not None:
            plan = dataclasses.replace(plan, reranking=shadow.rerank.settings())
        return plan

    def _compare(self, one: _Waiting, slate: Slate) -> None:
        served, shadow = one.served.item_ids[:COMPARED], slate.item_ids[:COMPARED]
        self._overlap.labels(one.shadow).observe(overlap(served, shadow))
        self._rbo.labels(one.shadow).observe(rank_biased_overlap(served, shadow))
        correlation = kendall_tau(served, shadow)
        if correlation is not None:
            self._kendall.labels(one.shadow).observe(correlation)
        took, served_took = (sum(seconds for _, seconds in timed.timings) for timed in (slate, one.served))
        self._delta.labels(one.shadow).observe(took - served_took)

    def _count(self, shadow: str, result: Result) -> None:
        self._runs.labels(shadow, result).inc()


def _histogram(telemetry: Telemetry, name: str, about: str, bounds: tuple[float, ...]) -> Any:
    return Histogram(
        f"reco_shadow_{name}",
        f"{about} By shadow plan.",
        ["shadow"],
        buckets=bounds,
        registry=telemetry.registry,
    )
