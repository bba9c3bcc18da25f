"""The OpenAPI document: what FastAPI derives, and what it can't know: the hot route, limits, headers, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.compat.handbook import EXAMPLES
from service.api.error_handlers import SERVER_ERROR, Fault, fault_of
from service.api.problems import MEDIA_TYPE, problem_of
from service.api.v1_schemas import ID_SCHEMA, MODEL_PATTERN, RecommendQuery
from service.errors import (
    InvalidRequest,
    ModelNotFound,
    NotPermitted,
    NotReady,
    RequestError,
    UserNotFound,
    WrongToken,
)
from service.settings import Settings

Document = dict[str, Any]

DESCRIPTION = """Recommendations from a verified, immutable bundle, inside a time budget.

`/reco` is the hot route. `/v1` says more and can be asked more. A request that can't be answered within its budget is
answered by what is popular, and says so in `X-Reco-Degraded`; it stays a 200. Every answer names its request
(`X-Request-Id`) and its bundle (`X-Reco-Bundle`)."""

HOT_PATH = "/reco/{model_name}/{user_id}"
_FRAMEWORKS_OWN = "HTTPValidationError"
_REQUEST_ID = "5f0c8a4e3d7b-1a"
_TAGS = [
    {"name": "reco", "description": "the hot route"},
    {"name": "v1", "description": "recommend, batch, similar, models; errors are RFC 9457 problems"},
    {"name": "health", "description": "open to everybody"},
]
_BUDGET_HEADER: Document = {
    "name": "X-Reco-Budget-Ms",
    "in": "header",
    "required": False,
    "description": "milliseconds this request may take; lowers the service's budget, never raises it",
    "schema": {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?$"},
    "example": "20",
}
_ID_HEADER: Document = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "your own id for this request: given back, and found in the log; an untame one is replaced",
    "schema": {"type": "string"},
    "example": "checkout-7",
}
_RESPONSE_HEADERS: Mapping[str, tuple[str, str]] = {
    "X-Request-Id": ("the request's id", _REQUEST_ID),
    "X-Reco-Bundle": ("the bundle that answered", "9b2f4c7d1a3e5f60"),
    "X-Reco-Model": ("the model that answered, by its real name", "als"),
    "X-Reco-Source": ("where the leading items came from", "personal"),
    "X-Reco-Degraded": ("stages skipped or overrun, by commas; absent when the line ran whole", "retrieve"),
    "X-Reco-Treatment": (
        "experiment=treatment, by commas; absent where the user is in no experiment",
        "ranking=als",
    ),
    "Server-Timing": ("milliseconds by stage", "retrieve;dur=0.041, complete;dur=0.006, total;dur=0.083"),
}


def describe(app: FastAPI, settings: Settings) -> None:
    """Give the app its document, made when first asked for."""

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _document(app: FastAPI, settings: Settings) -> Document:
    document = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=_TAGS
    )
    components = document["components"]
    schemas = components["schemas"]
    query = RecommendQuery.model_json_schema(ref_template="#/components/schemas/{model}")
    query.pop("$defs", None)
    schemas["RecommendQuery"] = query
    schemas["Errors"] = _ERRORS_SCHEMA
    schemas["RecoAnswer"] = _RECO_ANSWER_SCHEMA
    components["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "a token of the service, with the scope 'reco'",
        }
    }
    if "HandbookAnswer" in schemas:
        schemas["HandbookAnswer"]["examples"] = EXAMPLES  # the framework leaves nulls out of examples
    for name in (_FRAMEWORKS_OWN, "ValidationError"):
        schemas.pop(name, None)
    for name in ("RecommendBody", "RecommendQuery", "SimilarBody"):
        _bound(schemas[name]["properties"]["k"], settings.k_max)
    schemas["BatchBody"]["properties"]["queries"]["maxItems"] = settings.batch_max
    paths = document["paths"]
    paths[HOT_PATH] = {"get": _hot_route(settings)}
    for path, answers in _HEALTH.items():
        for status, content in answers.items():
            if path in paths:
                paths[path]["get"]["responses"][status]["content"] = content
    for path, operations in paths.items():
        for operation in operations.values():
            _finish(path, operation, settings)
    return document


def _bound(schema: Document, most: int) -> None:
    for option in schema.get("anyOf", [schema]):
        if option.get("type") == "integer":
            option["maximum"] = most


def _finish(path: str, operation: Document, settings: Settings) -> None:
    """Declare what middleware and route classes add to an operation."""
    if not settings.auth or (operation.get("security") and _opened(path, settings)):
        operation.pop("security", None)
    if "security" not in operation:
        for status in ("401", "403"):
            operation["responses"].pop(status, None)
    if path not in _HEALTH:
        operation.setdefault("parameters", []).extend((_BUDGET_HEADER, _ID_HEADER))
    invalid = operation["responses"].get("422")
    if invalid is not None and _FRAMEWORKS_OWN in str(invalid):
        del operation["responses"]["422"]  # this family answers such requests otherwise
    for status, response in operation["responses"].items():
        response.setdefault("headers", {}).setdefault("X-Request-Id", _header("X-Request-Id"))
        problem = response.get("content", {}).get(MEDIA_TYPE)
        if problem is not None:
            problem["example"] = problem_of([_fault(int(status))], _REQUEST_ID)


def _opened(path: str, settings: Settings) -> bool:
    return not settings.compat_auth and not path.startswith(("/v1/", "/reco/"))


def _header(name: str) -> Document:
    description, example = _RESPONSE_HEADERS[name]
    return {"description": description, "schema": {"type": "string"}, "example": example}


def _fault(status: int) -> Fault:
    """An example of each status, made by what makes the real ones."""
    known: Mapping[int, RequestError] = {
        401: WrongToken(),
        403: NotPermitted("reco"),
        404: ModelNotFound("nope"),
        422: InvalidRequest(("body", "k"), "less_than_equal", "Input should be less than or equal to 200"),
        503: NotReady(),
    }
    if status in known:
        return fault_of(known[status])
    words = {
        400: "The body is not JSON: unexpected end of data at character 12",
        405: "Method Not Allowed",
        413: "The body may hold 1048576 bytes",
        415: "The content type must be application/json",
    }
    return Fault(status, "http_exception", words[status]) if status in words else SERVER_ERROR


def _state(status: str, more: Document, example: Document) -> Document:
    schema = {
        "type": "object",
        "required": ["status", *more],
        "properties": {"status": {"type": "string", "enum": [status]}, **more},
    }
    return {"application/json": {"schema": schema, "example": {"status": status, **example}}}


_SECONDS: Document = {"seconds_since_heartbeat": {"type": "number"}}
_HEALTH: Mapping[str, Mapping[str, Document]] = {
    "/health": {"200": {"application/json": {"schema": {"type": "string"}, "example": "I am alive"}}},
    "/health/live": {
        "200": _state("alive", _SECONDS, {"seconds_since_heartbeat": 0.02}),
        "503": _state("stalled", _SECONDS, {"seconds_since_heartbeat": 12.5}),
    },
    "/health/ready": {
        "200": _state("ready", {"bundle": {"type": "string"}}, {"bundle": "9b2f4c7d1a3e5f60"}),
        "503": _state("unready", {"reason": {"type": "string"}}, {"reason": "draining"}),
    },
    "/metrics": {
        "200": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'reco_requests_total{model="als",status="200"} 12.0\n',
            }
        }
    },
}

_ERRORS_SCHEMA: Document = {
    "title": "Errors",
    "type": "object",
    "examples": [
        {"errors": [{"error_key": "item_not_found", "error_message": "Item 11 not found", "error_loc": None}]}
    ],
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["error_key", "error_message", "error_loc"],
                "properties": {
                    "error_key": {"type": "string"},
                    "error_message": {"type": "string"},
                    "error_loc": {
                        "anyOf": [
                            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                            {"type": "null"},
                        ]
                    },
                },
            },
        }
    },
}
_RECO_ANSWER_SCHEMA: Document = {
    "title": "RecoAnswer",
    "type": "object",
    "required": ["user_id", "items"],
    "properties": {"user_id": ID_SCHEMA, "items": {"type": "array", "items": ID_SCHEMA}},
}


def _hot_route(settings: Settings) -> Document:
    """Describe `service.api.reco`, which answers before the framework and so is unknown to it."""
    query_fault = InvalidRequest(("query", "k"), "int_parsing", "Input should be a valid integer")
    errors: list[tuple[int, str, Fault]] = [
        (401, "no token, or an unknown one", fault_of(WrongToken())),
        (403, "a token without the scope 'reco'", fault_of(NotPermitted("reco"))),
        (404, "a user id above the range, or an unknown model", fault_of(UserNotFound(9_999_999_999))),
        (405, "another method than GET or HEAD", Fault(405, "http_exception", "Method Not Allowed")),
        (422, "a malformed user id, k or budget", fault_of(query_fault)),
        (500, "the service failed; nothing is said of why", SERVER_ERROR),
        (503, "no bundle is live yet", fault_of(NotReady())),
    ]
    answer = {
        "description": "exactly k items, best first, while the catalogue has k that the user has not seen",
        "headers": {name: _header(name) for name in _RESPONSE_HEADERS},
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/RecoAnswer"},
                "example": {"user_id": 1, "items": [50, 181, 172, 1, 121, 222, 237, 117, 15, 151]},
            }
        },
    }
    return {
        "tags": ["reco"],
        "summary": "Recommend k items to a user",
        "description": "An unknown user is no error: the answer is what is popular, and `X-Reco-Source` says so.",
        "operationId": "reco",
        "security": [{"bearer": []}],
        "parameters": [
            {
                "name": "model_name",
                "in": "path",
                "required": True,
                "description": "a served model, see `/v1/models`; `default` stands for the best one",
                "schema": {"type": "string", "pattern": MODEL_PATTERN},
                "example": "default",
            },
            {
                "name": "user_id",
                "in": "path",
                "required": True,
                "description": f"digits, at most {settings.max_user_id}; or a string, if the bundle has string ids",
                "schema": ID_SCHEMA,
                "example": 1,
            },
            {
                "name": "k",
                "in": "query",
                "required": False,
                "description": "how many items",
                "schema": {"type": "integer", "minimum": 1, "maximum": settings.k_max, "default": settings.k},
                "example": 10,
            },
        ],
        "responses": {
            "200": answer,
            **{
                str(status): {
                    "description": description,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Errors"},
                            "example": _envelope_document(fault),
                        }
                    },
                }
                for status, description, fault in errors
            },
        },
    }


def _envelope_document(fault: Fault) -> Document:
    place = None if fault.location is None else list(fault.location)
    return {"errors": [{"error_key": fault.key, "error_message": fault.message, "error_loc": place}]}
