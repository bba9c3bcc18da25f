"""What the log holds: feedback that clients report, and impressions that the service makes itself.

Inside the process both are plain values; in the log each is one JSON object (docs/events.md lists the keys).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import orjson

from service.domain import ItemId, Plan, Query, Slate, UserId

FeedbackType = Literal["impression", "view", "click", "purchase", "rating", "last"]
FEEDBACK_TYPES: tuple[FeedbackType, ...] = get_args(FeedbackType)
MAX_EVENT_ID_CHARACTERS = 128
MAX_TIMESTAMP_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: later ones fit no calendar that a reader is likely to have."""
NO_TREATMENTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user did with one item, as a client reports it.

    `timestamp_ms`, `received_ms`: Unix time. `value` is by type: the fraction watched, the rating given, the amount
    paid. `request_id` names the answer in which the item was shown.
    """

    event_id: str
    type: FeedbackType
    user_id: UserId
    item_id: ItemId
    timestamp_ms: int
    received_ms: int
    value: float | None = None
    request_id: str | None = None

    def payload(self) -> bytes:
        """Encode for the log."""
        return orjson.dumps(
            {
                "type": self.type,
                "event_id": self.event_id,
                "user_id": self.user_id,
                "item_id": self.item_id,
                "timestamp_ms": self.timestamp_ms,
                "value": self.value,
                "request_id": self.request_id,
                "received_ms": self.received_ms,
            }
        )


class Impression(NamedTuple):
    """One slate as it was answered. A tuple, because one is made on the request path; the log's thread encodes it.

    `at`: Unix time in seconds. `seconds`: from the request's arrival until it was answered. `part`: place in a batch
    that shares one request id. `propensities`: probability of each place's item under the policy that chose it; None
    where nothing was left to chance. `query`, `plan`: what was asked and how it was answered, from which `reco replay`
    makes the slate again; `recent`: what the user was known to have done since the bundle was built; `retriever`: what
    overrode the bundle's.
    """

    at: float
    request_id: str
    user_id: UserId | None
    bundle_id: str
    model: str
    slate: Slate
    seconds: float
    treatments: Mapping[str, str] = NO_TREATMENTS
    propensities: Sequence[float] | None = None
    part: int | None = None
    query: Query | None = None
    plan: Plan | None = None
    recent: Sequence[ItemId] = ()
    retriever: str = "auto"

    def payload(self) -> bytes:
        """Encode for the log."""
        slate = self.slate
        return orjson.dumps(
            {
                "type": "impression",
                "event_id": event_id_of(self.request_id, self.part),
                "request_id": self.request_id,
                "timestamp_ms": int(self.at * 1000),
                "user_id": self.user_id,
                "bundle": self.bundle_id,
                "model": self.model,
                "treatments": dict(self.treatments),
                "items": slate.item_ids,
                "scores": slate.scores,
                "source": slate.source,
                "degraded": slate.degraded,
                "propensities": self.propensities,
                "found_by": slate.found_by,
                "latency_ms": round(self.seconds * 1000, 3),
                "asked": self._asked(),
            }
        )

    def _asked(self) -> dict[str, Any] | None:
        """What the slate can be made from again. Recent items are a number and a digest: the log has them."""
        query, plan = self.query, self.plan
        if query is None or plan is None:
            return None
        rules = query.filter
        return {
            "k": query.k,
            "history": query.history,
            "exclude_seen": query.exclude_seen,
            "filter": None
            if rules is None
            else {
                "allow": None if rules.allow is None else sorted(rules.allow, key=str),
                "deny": sorted(rules.deny, key=str),
                "attributes": dict(rules.attributes),
            },
            "recent": len(self.recent),
            "recent_digest": digest_of(self.recent) if self.recent else None,
            "retriever": self.retriever,
            "plan": plan,
        }


def digest_of(items: Sequence[ItemId]) -> str:
    """Name a history by its content: 16 hexadecimal digits of BLAKE2b over its JSON."""
    return hashlib.blake2b(orjson.dumps(items), digest_size=8).hexdigest()


Event = Feedback | Impression


def event_id_of(request_id: str, part: int | None) -> str:
    """Id of an impression: its request's, and its place where the request was a batch."""
    return request_id if part is None else f"{request_id}/{part}"


def is_slate(record: Mapping[str, Any]) -> bool:
    """Whether a decoded record is an impression that the service made, not feedback of a client."""
    return "items" in record


def identity(record: Mapping[str, Any]) -> str:
    """Name a decoded record by what makes it the same as another; slates and feedback are told apart."""
    return f"{'slate' if is_slate(record) else 'feedback'} {record['event_id']}"
