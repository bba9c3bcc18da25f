"""Which model to serve: the one that puts the tracks of a sitting into the order in which they were liked.

Each candidate is asked, as the service would be, with what its listener had liked until the sitting's first track, to
order the tracks that were then played. Of any two that were heard for different shares, the longer heard should stand
first; a pair counts by how much they differ (a weighted area under the ROC curve within a session). So every track
that was played says something, also those that nobody liked, and the session's own context is there: held-out likes
lack both.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from loadtest.loop.programs import LoopError, Running

_AT_ONCE = 100
_LONGEST = 1000
_TIMEOUT_S = 60.0

Heard = tuple[str, int, int, float, dt.datetime]
"""(message: `last` ends a session, user, track, share heard, when), by time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model, and the settings it is built with."""

    model: str
    config: Path

    def __str__(self) -> str:
        return f"{self.model}/{self.config.stem}"


class Sitting(NamedTuple):
    """What a user had liked up to a session's first track, oldest first; and what was played after it, how long."""

    user: int
    liked: tuple[int, ...]
    played: dict[int, float]


@dataclass(frozen=True, slots=True)
class Order:
    """Share of what lies between tracks that a model puts right, 0.5 by chance, with its standard error over users."""

    share: float
    error: float
    sittings: int

    @property
    def upper(self) -> float:
        """End of the 95% interval."""
        return self.share + 1.96 * self.error

    def as_json(self) -> dict[str, Any]:
        """Keys are the fields' names."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.share:.3f} ± {self.error:.3f} of pairs in order ({self.sittings} sittings)"


def sittings_of(heard: Iterable[Heard], liked_from: float) -> list[tuple[Sitting, dt.datetime]]:
    """Cut what was heard into sittings of two tracks or more after the first, and say when each began; by their end.

    A repeated track counts as it was heard the first time.
    """
    liked: defaultdict[int, dict[int, None]] = defaultdict(dict)
    open_of: dict[int, tuple[Sitting, dt.datetime]] = {}
    sittings: list[tuple[Sitting, dt.datetime]] = []
    for message, user, track, time, at in heard:
        if time >= liked_from:
            liked[user].pop(track, None)
            liked[user][track] = None
        if user in open_of:
            open_of[user][0].played.setdefault(track, time)
        else:
            open_of[user] = Sitting(user, tuple(liked[user])[-_LONGEST:], {}), at
        if message == "last":
            closed = open_of.pop(user)
            if len(closed[0].played) > 1:
                sittings.append(closed)
    return sittings


def judged(sittings: Sequence[Sitting], ordered: Callable[[Sequence[Sitting]], list[list[int]]]) -> Order:
    """Judge an order of the tracks of each sitting. Raises LoopError where no two tracks differ."""
    right: defaultdict[int, float] = defaultdict(float)
    total: defaultdict[int, float] = defaultdict(float)
    for begin in range(0, len(sittings), _AT_ONCE):
        some = sittings[begin : begin + _AT_ONCE]
        for sitting, tracks in zip(some, ordered(some), strict=True):
            times = [sitting.played[track] for track in tracks]
            for first, second in combinations(times, 2):
                right[sitting.user] += max(first - second, 0.0)
                total[sitting.user] += abs(first - second)
    return _ratio(right, total, len(sittings))


def _ratio(right: Mapping[int, float], total: Mapping[int, float], sittings: int) -> Order:
    """Ratio of sums over users, with its error by linearisation."""
    whole = math.fsum(total.values())
    if not whole:
        raise LoopError(
            "no two tracks of a sitting were heard for different shares: there is nothing to judge by"
        )
    share = math.fsum(right.values()) / whole
    squares = math.fsum((right[user] - share * total[user]) ** 2 for user in total)
    return Order(share, math.sqrt(squares) / whole, sittings)


def orders_of(service: Running, model: str) -> Callable[[Sequence[Sitting]], list[list[int]]]:
    """Ask a running service for the order of sittings' tracks. Raises LoopError where an answer is missing."""

    def ordered(sittings: Sequence[Sitting]) -> list[list[int]]:
        queries = [
            {
                "history": list(sitting.liked),
                "filter": {"allow": list(sitting.played)},
                "exclude_seen": False,
                "model": model,
                "k": len(sitting.played),
            }
            for sitting in sittings
        ]
        answer = httpx.post(
            f"{service.url}/v1/recommend:batch",
            json={"queries": queries},
            headers={"Authorization": f"Bearer {service.token}"},
            timeout=_TIMEOUT_S,
        )
        if answer.status_code != 200:
            raise LoopError(f"status {answer.status_code} to a batch: {answer.text[:200]}")
        return list(_items(answer.json()["results"]))

    return ordered


def _items(results: Sequence[Mapping[str, Any]]) -> Iterator[list[int]]:
    for result in results:
        if "answer" not in result:
            raise LoopError(f"no answer in a batch: {result}")
        yield [item["item_id"] for item in result["answer"]["items"]]


def best_of(orders: Mapping[Candidate, Order]) -> Candidate:
    """The candidate of the highest share; the earlier among equals."""
    return max(orders, key=lambda candidate: orders[candidate].share)
