"""Problem bodies (RFC 9457): the envelope of every error under /v1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.api.error_handlers import Fault

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:reco:problem:"
MAX_FAULTS = 32
"""Named in one problem; who has more will find the rest after mending these."""

TITLES: Mapping[str, str] = {
    "malformed_body": "The body is not JSON",
    "not_authenticated": "No token was sent",
    "wrong_token": "The token is not known",
    "not_permitted": "The token does not open this",
    "not_found": "There is nothing at this address",
    "user_not_found": "No user can have this id",
    "model_not_found": "No such model is served",
    "item_not_found": "No such item is in the catalogue",
    "method_not_allowed": "This address takes another method",
    "body_too_large": "The body is too large",
    "not_json": "The body is declared to be something else than JSON",
    "invalid_request": "The request is malformed",
    "server_error": "The service failed",
    "not_ready": "No bundle is live yet",
    "overloaded": "More is asked than can be answered in time",
    "events_unavailable": "Events cannot be written just now",
    "refused": "The request was refused",
}
"""Kind of problem -> what it says of itself."""

_KIND_OF_STATUS: Mapping[int, str] = {
    400: "malformed_body",
    401: "not_authenticated",
    403: "not_authenticated",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "not_json",
}


def problem_of(faults: Sequence[Fault], request_id: str) -> dict[str, Any]:
    """Describe faults of one status as one problem. `instance` is the request's id, by which logs find it."""
    first = faults[0]
    kind = _kind(first)
    problem: dict[str, Any] = {
        "type": TYPE_PREFIX + kind,
        "title": TITLES[kind],
        "status": first.status,
        "detail": first.message,
        "instance": request_id,
    }
    if kind == "invalid_request":
        place = ".".join(str(part) for part in first.location or ())
        problem["detail"] = f"{place}: {first.message}" if place else first.message
        problem["errors"] = [
            {"loc": list(fault.location or ()), "msg": fault.message, "type": fault.key}
            for fault in faults[:MAX_FAULTS]
        ]
    return problem


def render(faults: Sequence[Fault], request_id: str) -> tuple[str, bytes]:
    """Render as a problem document: content type, body."""
    return MEDIA_TYPE, orjson.dumps(problem_of(faults, request_id))


def _kind(fault: Fault) -> str:
    if fault.status == 422:
        return "invalid_request"
    if fault.key == "incorrect_bearer_key":
        return "wrong_token"
    if fault.key in TITLES:
        return fault.key
    return _KIND_OF_STATUS.get(fault.status, "refused")
