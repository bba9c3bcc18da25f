"""What is asked and what is answered, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.client.errors import RequestRefused

Id = int | str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items may be answered; all that is given must hold. `allow` None lets every item through."""

    allow: Sequence[Id] | None = None
    deny: Sequence[Id] = ()
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """One question to /v1: for a user, or for whoever has this history (item ids, oldest first).

    `k` None asks for the service's default number.
    """

    user_id: Id | None = None
    history: Sequence[Id] | None = None
    model: str = "default"
    k: int | None = None
    filter: Filter | None = None
    exclude_seen: bool = True


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The hot route's answer, with what its headers disclose.

    timings_ms: stage -> milliseconds on the server. treatments: experiment -> what the user got.
    """

    user_id: Id
    items: tuple[Id, ...]
    request_id: str
    bundle: str
    model: str
    source: str
    degraded: tuple[str, ...]
    timings_ms: Mapping[str, float]
    treatments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a slate. score: comparable within one model only; None where it is not finite.

    found_by: models whose candidates had it, where the model ranks those of several.
    """

    item_id: Id
    score: float | None
    source: str
    found_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slate:
    """/v1's answer, best first.

    model: by its real name. degraded: stages that were skipped or overran. treatments: experiment -> what the user got.
    """

    request_id: str
    bundle: str
    model: str
    source: str
    degraded: tuple[str, ...]
    items: tuple[Item, ...]
    timings_ms: Mapping[str, float]
    treatments: Mapping[str, str] = field(default_factory=dict)

    @property
    def item_ids(self) -> tuple[Id, ...]:
        """Just the ids, in order."""
        return tuple(item.item_id for item in self.items)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One question's outcome: exactly one of the two is there."""

    answer: Slate | None
    error: RequestRefused | None

    def unwrap(self) -> Slate:
        """The slate; raises the error if there is none."""
        if self.answer is None:
            assert self.error is not None  # made with one of the two
            raise self.error
        return self.answer


@dataclass(frozen=True, slots=True)
class Batch:
    """The outcomes in the order of the questions, all from one bundle."""

    request_id: str
    bundle: str
    results: tuple[BatchResult, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item and how near it is."""

    item_id: Id
    score: float | None


@dataclass(frozen=True, slots=True)
class Similar:
    """Neighbours, nearest first."""

    request_id: str
    bundle: str
    model: str
    items: tuple[Neighbour, ...]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Model:
    """One served model. recall_at_10: share of exact search's best ten that its retriever finds, None without one."""

    name: str
    kind: str
    default: bool
    dim: int | None
    space: str | None
    retriever: str | None
    recall_at_10: float | None
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Models:
    """What is served right now."""

    request_id: str
    bundle: str
    created_at: str
    default: str
    models: tuple[Model, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """Readiness. reason: why it is not ready; None when it is."""

    ready: bool
    bundle: str | None
    reason: str | None
