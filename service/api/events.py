"""POST /v1/events: what users did, acknowledged once it is on the disk."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.answering import live_of
from service.api.guarded import GuardedRoute, services_of
from service.api.v1 import EVERYWHERE, PREFIX, WITH_BODY, check_kind, problem_answer
from service.api.v1_schemas import Identifier
from service.bundle.manifest import Manifest
from service.errors import InvalidRequest
from service.events.schema import MAX_EVENT_ID_CHARACTERS, MAX_TIMESTAMP_MS, Feedback, FeedbackType

MAX_EVENTS = 1_000

EVENT_EXAMPLE: dict[str, Any] = {
    "event_id": "f3b1c0de-7a51-4d0e-9c55-0d3c2a7be001",
    "type": "view",
    "user_id": 1,
    "item_id": 50,
    "timestamp_ms": 1767225600000,
    "value": 0.83,
    "request_id": "5f0c8a4e3d7b-1a",
}


class EventBody(BaseModel):
    """What a user did with one item."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    event_id: Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID_CHARACTERS)] = Field(
        description="unique for ever: an event sent again under its id is counted once"
    )
    type: FeedbackType
    user_id: Identifier
    item_id: Identifier
    timestamp_ms: Annotated[int, Field(ge=0, le=MAX_TIMESTAMP_MS)] = Field(
        description="when it happened, milliseconds of Unix time"
    )
    value: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="by type: fraction watched, rating given, amount paid"
    )
    request_id: Annotated[str, Field(min_length=1, max_length=MAX_EVENT_ID_CHARACTERS)] | None = Field(
        None, description="the answer in which the item was shown"
    )


class EventsBody(BaseModel):
    """A batch: written whole or refused whole."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={"examples": [{"events": [EVENT_EXAMPLE]}]},
    )

    events: Annotated[list[EventBody], Field(min_length=1, max_length=MAX_EVENTS)]


class EventsAnswer(BaseModel):
    """What became of a batch."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"accepted": 1, "duplicates": 0}]})

    accepted: int = Field(description="events that are on the disk now and were not before")
    duplicates: int = Field(description="events that were there already, or twice in the batch")


events = APIRouter(
    prefix=PREFIX,
    tags=["v1"],
    route_class=GuardedRoute,
    responses={
        **EVERYWHERE,
        503: problem_answer("the event log can't be written just now, or no bundle is live yet"),
    },
)


@events.post(
    "/events",
    response_model=EventsAnswer,
    responses={
        **WITH_BODY,
        200: {"description": "all of them are on the disk"},
    },
)
async def append_events(request: Request, body: EventsBody) -> Response:
    """Log what users did. The answer comes once the events are on the disk; a 503 may be sent again as it was.

    The answer after it to the same user knows of them.
    """
    services = services_of(request)
    log = services.events
    assert log is not None  # without RECO_EVENTS_DIR there is no such route
    received_ms = time.time_ns() // 1_000_000
    manifest = live_of(services).bundle.manifest
    most = services.settings.max_user_id
    feedback = [_feedback(event, n, manifest, most, received_ms) for n, event in enumerate(body.events)]
    result = await log.append(feedback)
    if services.history is not None:  # duplicates too: the first time, this may not have been reached
        await services.history.append(feedback)
    return Response(
        orjson.dumps({"accepted": result.accepted, "duplicates": result.duplicates}),
        media_type="application/json",
    )


def _feedback(
    event: EventBody, number: int, manifest: Manifest, max_user_id: int, received_ms: int
) -> Feedback:
    """Check what only the live bundle and the settings know. Raises InvalidRequest."""
    place = ("body", "events", number)
    check_kind(event.user_id, manifest.user_id_kind, (*place, "user_id"))
    check_kind(event.item_id, manifest.item_id_kind, (*place, "item_id"))
    if isinstance(event.user_id, int) and event.user_id > max_user_id:
        message = f"Input should be less than or equal to {max_user_id}"
        raise InvalidRequest((*place, "user_id"), "less_than_equal", message)
    return Feedback(
        event.event_id, event.type, event.user_id, event.item_id, event.timestamp_ms, received_ms, event.value,
        event.request_id,
    )  # fmt: skip
