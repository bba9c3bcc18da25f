"""From an impression in the log to what was asked and how it was answered."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.domain import Deadline, ItemFilter, Plan, Query
from service.errors import InputError
from service.policy.assignment import chance_of
from service.recommender.live import RetrieverChoice

_STAGES = frozenset({"retrieve", "rank", "rerank"})
"""Stages that a record may say were skipped, and that a replay can skip too; single sources of a pool beside."""
_SOURCE = "retrieve:"
_HARMLESS = frozenset({"overrun", "history", "error", "user_features", "item_features"})
"""What a record may say beside: late but whole; a history that was not read whole, as `recent` shows; a line that
broke and was answered by what is popular; features that the bundle lacks."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer to make again. `recent`, `digest`: how many items the user's live history had, and which."""

    event_id: str
    user: Any
    at_ms: int
    bundle: str
    query: Query
    plan: Plan
    retriever: RetrieverChoice
    recent: int
    digest: str | None
    late: bool
    """Retrieval was skipped, because it would not have fitted before the deadline."""
    items: tuple[Any, ...]
    scores: tuple[float, ...]
    source: str
    propensities: tuple[float, ...] | None

    def deadline(self) -> Deadline:
        """One that lets run what ran."""
        return Deadline(-1.0) if self.late else Deadline.none()


def asked_of(record: Mapping[str, Any]) -> Asked:
    """Read a decoded impression. Raises InputError where it lacks what a replay needs, naming the record."""
    event_id: str = record["event_id"]
    asked = record.get("asked")
    if asked is None:
        raise InputError(f"{event_id}: its record does not say what was asked: an older version wrote it")
    degraded = set(record["degraded"])
    skipped = {stage for stage in degraded if stage == "rank" or stage.startswith(_SOURCE)}
    if unknown := sorted(degraded - skipped - _STAGES - _HARMLESS):
        raise InputError(f"{event_id}: it left out {unknown[0]!r}, which this version cannot leave out alike")
    try:
        plan = _made(Plan, asked["plan"])
        rules = asked["filter"]
        query = Query(
            user_id=record["user_id"],
            k=asked["k"],
            history=None if asked["history"] is None else tuple(asked["history"]),
            filter=None if rules is None else _filter(rules),
            exclude_seen=asked["exclude_seen"],
            seed=chance_of(event_id, record["user_id"]) if plan.exploration is not None else 0,
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{event_id}: its record is not one that this version writes: {error}") from None
    if "error" in degraded:
        plan = Plan("popular")
    else:
        plan = dataclasses.replace(
            plan,
            reranking=None if "rerank" in degraded else plan.reranking,
            left_out=(*plan.left_out, *sorted(skipped)),
        )
    propensities = record.get("propensities")
    return Asked(
        event_id,
        record["user_id"],
        record["timestamp_ms"],
        record["bundle"],
        query,
        plan,
        asked["retriever"],
        asked["recent"],
        asked["recent_digest"],
        "retrieve" in degraded,
        tuple(record["items"]),
        tuple(record["scores"]),
        record["source"],
        None if propensities is None else tuple(propensities),
    )


def _filter(rules: Mapping[str, Any]) -> ItemFilter:
    return ItemFilter(
        allow=None if rules["allow"] is None else frozenset(rules["allow"]),
        deny=frozenset(rules["deny"]),
        attributes={name: tuple(values) for name, values in rules["attributes"].items()},
    )


def _made(kind: type[Any], raw: Mapping[str, Any]) -> Any:
    """A frozen value object from its JSON: nested ones too, lists as tuples. Raises TypeError for unknown fields."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints.get(name), value) for name, value in raw.items()})


def _value(hint: Any, raw: Any) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next((part for part in typing.get_args(hint) if dataclasses.is_dataclass(part)), None)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(raw, dict):
        return _made(hint, raw)
    if isinstance(raw, list):
        inner = typing.get_args(hint)[:1] if hint is not None else ()
        return tuple(_value(inner[0] if inner else None, one) for one in raw)
    return raw
