"""Questions to HTTP requests, HTTP responses to answers. Both clients share it; no I/O in here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import orjson

from service.client.answers import (
    Batch,
    BatchResult,
    Filter,
    Health,
    Id,
    Item,
    Model,
    Models,
    Neighbour,
    Question,
    Recommendation,
    Similar,
    Slate,
)
from service.client.errors import AnswerNotUnderstood, Fault, RequestRefused, refused

TOKEN_VARIABLE = "RECO_TOKEN"  # noqa: S105 - the variable's name
DEFAULT_TIMEOUT_S = 5.0

T = TypeVar("T")
_DURATION = re.compile(r"\s*([^;,\s]+)\s*;\s*dur=([0-9.]+)")
_TREATMENT = re.compile(r"([^=,\s]+)=([^=,\s]+)")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request and how to read its answer. `accepts`: statuses below 500 beyond 200 that are answers."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    accepts: tuple[int, ...] = (200,)

    def answer(self, response: httpx.Response) -> T:
        """Read the answer. Raises RequestRefused or AnswerNotUnderstood."""
        if response.status_code not in self.accepts:
            raise _error_of(response)
        try:
            return self.read(response)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AnswerNotUnderstood(
                f"{self.method} {self.path}: the answer is not of this service ({type(error).__name__}: {error})"
            ) from error


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is and what opens it. The token never shows in `repr`."""

    base_url: str
    token: str | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S

    @classmethod
    def of(cls, base_url: str, token: str | None, timeout_s: float) -> Access:
        """Take the token from the argument, or from RECO_TOKEN. Raises ValueError for one no header can carry."""
        token = (os.environ.get(TOKEN_VARIABLE) if token is None else token) or None
        if token is not None and re.fullmatch(r"[!-~]+", token) is None:
            raise ValueError("a token is made of visible ASCII characters")
        return cls(base_url, token, timeout_s)

    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}

    def __str__(self) -> str:
        return f"{self.base_url} ({'token ***' if self.token else 'no token'}, timeout {self.timeout_s:g} s)"


# -- questions ---------------------------------------------------------------------------------------------------


def recommend(
    user_id: Id, *, model: str, k: int | None, budget_ms: float | None, request_id: str | None
) -> Call[Recommendation]:
    """GET /reco/{model}/{user_id}."""
    return Call(
        "GET",
        f"/reco/{_segment(model)}/{_segment(str(user_id))}",
        _recommendation,
        params={} if k is None else {"k": str(k)},
        headers=_extra(budget_ms, request_id),
    )


def v1_recommend(question: Question, *, budget_ms: float | None, request_id: str | None) -> Call[Slate]:
    """POST /v1/recommend."""
    return _post("/v1/recommend", _question(question), lambda r: _slate(r.json()), budget_ms, request_id)


def batch(questions: Sequence[Question], *, budget_ms: float | None, request_id: str | None) -> Call[Batch]:
    """POST /v1/recommend:batch."""
    body = {"queries": [_question(question) for question in questions]}
    return _post("/v1/recommend:batch", body, lambda r: _batch(r.json()), budget_ms, request_id)


def similar(item_id: Id, *, model: str, k: int | None, request_id: str | None) -> Call[Similar]:
    """POST /v1/similar."""
    body: dict[str, Any] = {"item_id": item_id, "model": model}
    if k is not None:
        body["k"] = k
    return _post("/v1/similar", body, lambda r: _similar(r.json()), None, request_id)


def models(*, request_id: str | None) -> Call[Models]:
    """GET /v1/models."""
    return Call("GET", "/v1/models", lambda r: _models(r.json()), headers=_extra(None, request_id))


def health() -> Call[Health]:
    """GET /health/ready."""
    return Call("GET", "/health/ready", lambda r: _health(r.json()), accepts=(200, 503))


def _post(
    path: str,
    body: dict[str, Any],
    read: Callable[[httpx.Response], T],
    budget_ms: float | None,
    request_id: str | None,
) -> Call[T]:
    headers = {"Content-Type": "application/json", **_extra(None, request_id)}
    if budget_ms is not None:
        body["budget_ms"] = budget_ms
    return Call("POST", path, read, headers=headers, content=orjson.dumps(body))


def _segment(name: str) -> str:
    """Quote a path segment; dots alone would walk up the path."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def _extra(budget_ms: float | None, request_id: str | None) -> dict[str, str]:
    headers = {}
    if budget_ms is not None:
        headers["X-Reco-Budget-Ms"] = f"{budget_ms:.6f}".rstrip("0").rstrip(".")
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    return headers


def _question(question: Question) -> dict[str, Any]:
    body: dict[str, Any] = {"model": question.model, "exclude_seen": question.exclude_seen}
    if question.user_id is not None:
        body["user_id"] = question.user_id
    if question.history is not None:
        body["history"] = list(question.history)
    if question.k is not None:
        body["k"] = question.k
    if question.filter is not None:
        body["filter"] = _filter(question.filter)
    return body


def _filter(asked: Filter) -> dict[str, Any]:
    return {
        "allow": None if asked.allow is None else list(asked.allow),
        "deny": list(asked.deny),
        "attributes": {name: list(values) for name, values in asked.attributes.items()},
    }


# -- answers -----------------------------------------------------------------------------------------------------


def _recommendation(response: httpx.Response) -> Recommendation:
    body, headers = response.json(), response.headers
    return Recommendation(
        user_id=body["user_id"],
        items=tuple(body["items"]),
        request_id=headers["x-request-id"],
        bundle=headers["x-reco-bundle"],
        model=headers["x-reco-model"],
        source=headers["x-reco-source"],
        degraded=tuple(name for name in headers.get("x-reco-degraded", "").split(",") if name),
        timings_ms={name: float(ms) for name, ms in _DURATION.findall(headers.get("server-timing", ""))},
        treatments=dict(_TREATMENT.findall(headers.get("x-reco-treatment", ""))),
    )


def _slate(body: Any) -> Slate:
    return Slate(
        request_id=body["request_id"],
        bundle=body["bundle"],
        model=body["model"],
        source=body["source"],
        degraded=tuple(body["degraded"]),
        items=tuple(
            Item(item["item_id"], item["score"], item["source"], tuple(item.get("found_by", ())))
            for item in body["items"]
        ),
        timings_ms=body["timings_ms"],
        treatments=body.get("treatments", {}),
    )


def _batch(body: Any) -> Batch:
    results = []
    for result in body["results"]:
        if result.get("answer") is not None:
            results.append(BatchResult(_slate(result["answer"]), None))
        else:
            results.append(BatchResult(None, _error_of_problem(result["problem"])))
    return Batch(body["request_id"], body["bundle"], tuple(results), body["timings_ms"])


def _similar(body: Any) -> Similar:
    items = tuple(Neighbour(item["item_id"], item["score"]) for item in body["items"])
    return Similar(body["request_id"], body["bundle"], body["model"], items, body["timings_ms"])


def _models(body: Any) -> Models:
    served = tuple(
        Model(
            name=model["name"],
            kind=model["kind"],
            default=model["default"],
            dim=model["dim"],
            space=model["space"],
            retriever=model["retriever"],
            recall_at_10=None if model["recall"] is None else model["recall"]["at_10"],
            metrics=model["metrics"],
        )
        for model in body["models"]
    )
    return Models(body["request_id"], body["bundle"], body["created_at"], body["default"], served)


def _health(body: Any) -> Health:
    return Health(body["status"] == "ready", body.get("bundle"), body.get("reason"))


# -- errors ------------------------------------------------------------------------------------------------------


def _error_of(response: httpx.Response) -> RequestRefused | AnswerNotUnderstood:
    """Read an error answer: a problem under /v1, the template's envelope elsewhere."""
    request_id = response.headers.get("x-request-id")
    try:
        body = response.json()
        if "errors" in body and "type" not in body:
            faults = tuple(
                Fault(tuple(fault["error_loc"] or ()), fault["error_key"], fault["error_message"])
                for fault in body["errors"]
            )
            return refused(response.status_code, faults[0].kind, faults[0].message, request_id, faults)
        return _error_of_problem(body)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return AnswerNotUnderstood(
            f"{response.request.method} {response.request.url.path}: status {response.status_code} "
            "with a body that is not of this service"
        )


def _error_of_problem(body: Any) -> RequestRefused:
    faults = tuple(Fault(tuple(f["loc"]), f["type"], f["msg"]) for f in body.get("errors") or ())
    kind = body["type"].rpartition(":")[2]
    return refused(body["status"], kind, body["detail"], body.get("instance"), faults)
