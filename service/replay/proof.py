"""Answer again by the line that served, and compare place by place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain import ItemId, Slate
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend
from service.replay.record import Asked

_CLOSE = 1e-4
"""Relative to the slate's largest score: other processors and libraries add in another order."""


@dataclass(frozen=True, slots=True)
class Proof:
    """`differences`: what is not as it was served, in words; none where the slate was proved."""

    event_id: str
    bundle: str
    model: str
    items: tuple[ItemId, ...]
    again: tuple[ItemId, ...]
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether the slate made now is the one that was served."""
        return not self.differences

    def document(self) -> dict[str, Any]:
        """Lay out with plain JSON values."""
        return {**dataclasses.asdict(self), "equal": self.equal}


def prove(asked: Asked, recent: Sequence[ItemId], live: LiveBundle) -> Proof:
    """Make a slate again on the bundle that made it, with the history its user then had.

    Equal: the same items in the same places from the same source, scores and propensities within rounding. Items whose
    scores differ by no more than rounding may have changed places.
    """
    query = dataclasses.replace(asked.query, recent=tuple(recent))
    slate = recommend(query, asked.plan, live, asked.deadline())
    again = tuple(slate.item_ids)
    return Proof(
        asked.event_id, asked.bundle, asked.plan.model, asked.items, again, tuple(_differences(asked, slate))
    )


def _differences(asked: Asked, slate: Slate) -> Iterator[str]:
    again = slate.item_ids
    if len(again) != len(asked.items):
        yield f"{len(asked.items)} items were served, {len(again)} come now"
        return
    if slate.source != asked.source:
        yield f"they came from {asked.source}, now from {slate.source}"
    largest = max((abs(score) for score in asked.scores if math.isfinite(score)), default=0.0)
    for place, (was, now) in enumerate(zip(asked.scores, slate.scores, strict=True), start=1):
        if was != now and not abs(was - now) <= _CLOSE * largest:
            yield f"place {place}: its score was {was:.6g}, now {now:.6g}"
    moved = [place for place, (was, now) in enumerate(zip(asked.items, again, strict=True)) if was != now]
    for place in moved:
        if not _tied(asked, again[place], asked.scores[place], largest):
            yield f"place {place + 1}: it held {asked.items[place]!r}, now {again[place]!r}"
    yield from _chances(asked, slate)


def _tied(asked: Asked, item: ItemId, score: float, largest: float) -> bool:
    """Whether the item that stands here now was served too, with a score that is this place's but for rounding."""
    if item not in asked.items:
        return False
    was = asked.scores[asked.items.index(item)]
    return abs(was - score) <= _CLOSE * largest


def _chances(asked: Asked, slate: Slate) -> Iterator[str]:
    if (asked.propensities is None) != (slate.propensities is None):
        yield "one of them left places to chance, the other did not"
        return
    pairs = zip(asked.propensities or (), slate.propensities or (), strict=True)
    for place, (was, now) in enumerate(pairs, start=1):
        if not math.isclose(was, now, rel_tol=1e-3, abs_tol=1e-9):
            yield f"place {place}: its propensity was {was:.6g}, now {now:.6g}"
