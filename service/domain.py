"""The nouns of the request line. Frozen and slotted; no I/O, no HTTP, no numpy behaviour of their own.

Those made anew for every request are frozen for the type checker only (`value`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, dataclass_transform

import numpy as np
import numpy.typing as npt

UserId = int | str
ItemId = int | str
IdKind = Literal["int64", "str"]
Space = Literal["ip", "cosine", "l2"]
"""`ip`: larger inner product is nearer; `cosine`: the same on unit-norm vectors; `l2`: smaller distance is nearer."""

Source = Literal["personal", "fold_in", "features", "segment_popular", "popular"]
"""Where items came from: the user's trained vector or list; their history; their features alone; their segment;
everybody."""

ItemRows = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
Clock = Callable[[], float]

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """Make a slotted dataclass that the type checker holds for frozen, as all code here has to treat it.

    At run time it is not: a frozen one sets each field through `object.__setattr__`, which makes making one dearer by
    four times, a microsecond for seven fields.
    """
    return dataclass(slots=True)(cls)


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """What the caller lets through. An item is eligible if it is in `allow` (None: everything), not in `deny`,
    and for every attribute has at least one of the listed values."""

    allow: frozenset[ItemId] | None = None
    deny: frozenset[ItemId] = frozenset()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@value
class Query:
    """Who asks, for how many, among what.

    `history` (item ids, oldest first) replaces what the bundle knows of the user: those items are the seen
    ones, and the user's vector is solved from them. `recent` (oldest first) comes on top of it: what happened since
    the bundle was built. `exclude_seen` False lets seen items through. `seed` decides what a plan leaves to chance.
    """

    user_id: UserId | None
    k: int
    history: tuple[ItemId, ...] | None = None
    filter: ItemFilter | None = None
    exclude_seen: bool = True
    recent: tuple[ItemId, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Exploration:
    """How places of a slate are left to chance. docs/experiments.md has the formulas.

    `epsilon`: each place takes, with probability `strength`, any of the remaining candidates, each as likely.
    `softmax`: places are drawn in proportion to exp(z / `strength`), z the score in standard deviations of the pool.
    `newcomers`: each place takes, with probability `strength`, any of the items without events, each as likely.
    """

    kind: Literal["epsilon", "softmax", "newcomers"]
    strength: float


@dataclass(frozen=True, slots=True)
class AttributeCap:
    """At most `most` places of a slate a value of this item attribute, while the candidates allow it."""

    attribute: str
    most: int


@dataclass(frozen=True, slots=True)
class Reranking:
    """How the candidates are put into an order that is good as a whole. docs/experiments.md has the formulas.

    `mmr`: maximal marginal relevance. `dpp`: greedy determinant over the last `window` places.
    `calibrated`: the history's proportions of an attribute's values. `relevance`, 0 to 1, is what an item's own score
    counts beside its unlikeness to the others, or beside calibration.
    """

    method: Literal["mmr", "dpp", "calibrated"]
    relevance: float = 0.7
    window: int = 10
    cap: AttributeCap | None = None
    attribute: str = ""
    """Of `calibrated`: whose values the slate should hold in the history's proportions."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Items that stand higher (`boost`), lower (`bury`) or first (`pin`): those listed, or with one of the attribute's
    values. `strength`: standard deviations of the candidates' scores. `most`: how many are pinned."""

    name: str
    action: Literal["pin", "boost", "bury"]
    attribute: str = ""
    values: tuple[str, ...] = ()
    items: tuple[ItemId, ...] = ()
    strength: float = 1.0
    most: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer: which model retrieves, how many candidates it hands on, how they are put in order, and what is
    left to chance."""

    model: str
    n_candidates: int = 0
    """0: just k."""
    exploration: Exploration | None = None
    reranking: Reranking | None = None
    rules: tuple[Rule, ...] = ()
    left_out: tuple[str, ...] = ()
    """Stages of a two-stage model never to run: `rank`, or `retrieve:` and the name of a source."""


@value
class Candidates:
    """Items on their way to a slate, best first.

    item_rows: int32 (n,), rows of the catalogue, unique. scores: float32 (n,), larger is better.
    `filtered` is True when every item is known to be eligible and unseen.
    """

    item_rows: ItemRows
    scores: Scores
    source: Source
    filtered: bool = False


@value
class Slate:
    """The answer. `item_ids`, `scores` and `sources` have one entry a place, best first."""

    item_ids: list[ItemId]
    scores: list[float]
    source: Source
    n_personal: int
    """How many leading places came from the model itself; the rest were topped up by the fallback."""
    top_up: Source
    """The source of the places after the first `n_personal`."""
    degraded: tuple[str, ...]
    """Names of stages skipped or cut short; empty when the line ran whole."""
    timings: tuple[tuple[str, float], ...]
    """(stage, seconds) in the order they ran."""
    propensities: tuple[float, ...] | None = None
    """Probability of each place's item given the places before it; None where the plan leaves nothing to chance."""
    found_by: list[tuple[str, ...]] | None = None
    """The models whose lists had each place's item, none for one that was topped up; None unless several were asked."""

    @property
    def sources(self) -> list[Source]:
        """Source of each place."""
        return [self.source] * self.n_personal + [self.top_up] * (len(self.item_ids) - self.n_personal)


_RESERVE_SHARE = 0.2
_ENDLESS = math.inf


class Deadline:
    """One budget per request, counted from its arrival on a monotonic clock, in seconds.

    CPU work can't be pre-empted, so a stage asks `fits(cost)` before it starts: its expected cost must fit in
    what is left after a reserve, kept so that the fallback and the response still fit.
    """

    __slots__ = ("expires_at", "now", "reserve", "started_at")
    now: Clock
    """The clock's reading, seconds."""

    def __init__(self, budget: float, clock: Clock = time.perf_counter, age: float = 0.0) -> None:
        """`age`: how long ago the request arrived, seconds; it counts against the budget."""
        self.now = clock
        self.started_at = started_at = clock() - age
        self.expires_at = started_at + budget
        self.reserve = budget * _RESERVE_SHARE if budget != _ENDLESS else 0.0

    @classmethod
    def none(cls) -> Deadline:
        """A deadline that never comes: offline replay."""
        return cls(_ENDLESS)

    def lower(self, budget: float) -> None:
        """Shorten the budget, still counted from the arrival; a longer one changes nothing."""
        expires_at = self.started_at + budget
        if expires_at < self.expires_at:
            self.expires_at = expires_at
            self.reserve = budget * _RESERVE_SHARE

    def remaining(self) -> float:
        """Seconds left; negative once overrun."""
        return self.expires_at - self.now()

    def fits(self, cost: float, now: float) -> bool:
        """Whether a stage of that cost, begun at `now`, would leave the reserve untouched."""
        return now + cost + self.reserve <= self.expires_at
