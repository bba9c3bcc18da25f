"""Answers of the hot route kept to be given again: only where computing them anew would give the same.

The key holds all that an answer depends on: the plan under its live bundle (`PlanNumber`), the user, k, and what the
user did since the bundle was built. What depends on more is never kept: an answer that leaves places to chance, and
one that left a stage out.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import NamedTuple

from prometheus_client import Counter

from service.domain import ItemId, Slate, UserId
from service.telemetry import Telemetry

PlanNumber = int
_NUMBERS = itertools.count(1)


def new_plan_number() -> PlanNumber:
    """Name a plan under one live bundle: no other of this process, before or after, has the same number."""
    return next(_NUMBERS)


class Key(NamedTuple):
    """What an answer depends on. `recent`: the user's items since the bundle was built."""

    plan: PlanNumber
    user_id: UserId | None
    k: int
    recent: tuple[ItemId, ...]


class Kept(NamedTuple):
    """An answer's body, and its slate without timings: nothing was run to give it again."""

    body: bytes
    slate: Slate


class ResponseCache:
    """At most `most` answers; the one least recently given goes first. Call from the event loop only."""

    __slots__ = ("_answers", "_counter", "_hits", "_misses", "_most")

    def __init__(self, most: int, telemetry: Telemetry) -> None:
        self._most = most
        self._answers: OrderedDict[Key, Kept] = OrderedDict()
        self._hits = self._misses = 0
        self._counter = Counter(
            "reco_response_cache", "Answers that could be kept, by whether they were.", ["result"],
            registry=telemetry.registry,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: Key) -> Kept | None:
        """Find an answer."""
        kept = self._answers.get(key)
        if kept is None:
            self._misses += 1
            return None
        self._hits += 1
        self._answers.move_to_end(key)
        return kept

    def put(self, key: Key, kept: Kept) -> None:
        """Keep an answer."""
        self._answers[key] = kept
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget all: the bundle they came from is not live any more."""
        self._answers.clear()

    def flush_counts(self) -> None:
        """Hand what was counted to the metrics."""
        for result, count in (("hit", self._hits), ("miss", self._misses)):
            if count:
                self._counter.labels(result).inc(count)
        self._hits = self._misses = 0
