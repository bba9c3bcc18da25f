"""Errors to answers: type -> status and key in one table; each family of routes puts them in its own envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import (
    EventsUnavailable,
    InvalidRequest,
    ItemNotFound,
    ModelNotFound,
    NotAuthenticated,
    NotPermitted,
    NotReady,
    Overloaded,
    RequestError,
    UserNotFound,
    WrongToken,
)

_KEYS: Mapping[type[RequestError], tuple[int, str]] = {
    UserNotFound: (404, "user_not_found"),
    ModelNotFound: (404, "model_not_found"),
    ItemNotFound: (404, "item_not_found"),
    NotAuthenticated: (
        401,
        "http_exception",
    ),  # what the course template's HTTPBearer raises is an HTTPException
    WrongToken: (401, "incorrect_bearer_key"),
    NotPermitted: (403, "not_permitted"),
    NotReady: (503, "not_ready"),
    Overloaded: (503, "overloaded"),
    EventsUnavailable: (503, "events_unavailable"),
}
_CHALLENGES: Mapping[type[RequestError], Mapping[str, str]] = {
    NotAuthenticated: {"WWW-Authenticate": "Bearer"},
    WrongToken: {"WWW-Authenticate": 'Bearer error="invalid_token"'},
    NotPermitted: {"WWW-Authenticate": 'Bearer error="insufficient_scope"'},
    NotReady: {"Retry-After": "1"},
    Overloaded: {"Retry-After": "1"},
    EventsUnavailable: {"Retry-After": "1"},
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request, in no family's words yet."""

    status: int
    key: str
    message: str
    location: tuple[str | int, ...] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


SERVER_ERROR = Fault(500, "server_error", "Internal Server Error")

Renderer = Callable[[Sequence[Fault], str], tuple[str, bytes]]
"""Faults of one request (all of one status), the request's id -> content type, body."""


def fault_of(error: RequestError, missing_token_status: int = 401) -> Fault:
    """Describe an error of ours."""
    if isinstance(error, InvalidRequest):
        return Fault(422, error.kind, str(error), error.location)
    status, key = _KEYS[type(error)]
    if isinstance(error, NotAuthenticated):
        status = missing_token_status
    return Fault(status, key, str(error), None, _CHALLENGES.get(type(error), {}))


def envelope(faults: Sequence[Fault], request_id: str = "") -> tuple[str, bytes]:  # noqa: ARG001 - other families name it
    """Render as the course template does: `{"errors":[{"error_key","error_message","error_loc"}]}`."""
    errors = [{"error_key": f.key, "error_message": f.message, "error_loc": f.location} for f in faults]
    return "application/json", orjson.dumps({"errors": errors})


class ErrorFamilies:
    """Which envelope answers under which path; the template's where no other family is named."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, Renderer] = {}
        self._by_path: dict[str, Renderer] = {}

    def add(self, prefix: str, renderer: Renderer) -> None:
        """Answer faults under a path prefix in this envelope."""
        self._by_prefix[prefix] = renderer

    def add_exact(self, path: str, renderer: Renderer) -> None:
        """Answer faults of one path, and of none below it, in this envelope."""
        self._by_path[path] = renderer

    def renderer_of(self, path: str) -> Renderer:
        """Find the envelope of the path itself, else of the longest prefix that fits."""
        if path in self._by_path:
            return self._by_path[path]
        fitting = [prefix for prefix in self._by_prefix if path.startswith(prefix)]
        return self._by_prefix[max(fitting, key=len)] if fitting else envelope

    def response(self, request: Request, faults: Sequence[Fault]) -> Response:
        """Answer faults."""
        request_id: str = getattr(request.state, "request_id", "")
        # Not request.url: it can't be made of a query string that is not UTF-8.
        content_type, body = self.renderer_of(request.scope["path"])(faults, request_id)
        return Response(body, faults[0].status, dict(faults[0].headers), media_type=content_type)


def _faults_of_validation(error: RequestValidationError) -> list[Fault]:
    # Not the input: it may be large, not JSON, or somebody's secret.
    faults = error.errors()
    return [Fault(422, str(f["type"]), str(f["msg"]), tuple(f["loc"])) for f in faults]


def _fault_of_http(error: HTTPException) -> Fault:
    message = error.detail if isinstance(error.detail, str) else HTTPStatus(error.status_code).phrase
    return Fault(error.status_code, "http_exception", message, None, error.headers or {})


def register_error_handlers(app: FastAPI, families: ErrorFamilies, missing_token_status: int) -> None:
    """Answer every error of the app's routes in the envelope of the route's family. A 500 says nothing of its cause."""

    async def on_request_error(request: Request, error: Any) -> Response:
        return families.response(request, [fault_of(error, missing_token_status)])

    async def on_validation_error(request: Request, error: Any) -> Response:
        return families.response(request, _faults_of_validation(error))

    async def on_http_exception(request: Request, error: Any) -> Response:
        return families.response(request, [_fault_of_http(error)])

    async def on_anything(request: Request, error: Exception) -> Response:  # noqa: ARG001 - logged by the middleware
        return families.response(request, [SERVER_ERROR])

    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_anything)
