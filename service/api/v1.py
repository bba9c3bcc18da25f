"""/v1: recommend, recommend:batch, similar, models. FastAPI as people know it, over the one pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from service.api.answering import (
    assigned,
    bundle_response,
    degraded_header,
    live_of,
    log_shown,
    recent_of,
    slate_for,
    slate_of,
    slate_response,
)
from service.api.error_handlers import Fault, fault_of
from service.api.guarded import GuardedRoute, deadline_of, services_of
from service.api.problems import MEDIA_TYPE, problem_of
from service.api.services import Services
from service.api.v1_schemas import (
    BatchAnswer,
    BatchBody,
    FilterBody,
    ModelsAnswer,
    RecommendAnswer,
    RecommendBody,
    RecommendQuery,
    SimilarAnswer,
    SimilarBody,
)
from service.bundle.manifest import RetrieverName
from service.domain import Deadline, IdKind, ItemFilter, Query, Slate
from service.errors import InvalidRequest, RequestError, UserNotFound
from service.events.schema import event_id_of
from service.policy.experiments import Assignment
from service.recommender.live import LiveBundle, LiveModel
from service.recommender.retrieval import FactorsRetriever
from service.recommender.similar import similar

PREFIX = "/v1"
_TURN_S = 0.002
"""A batch lets other requests run after each such time."""
_CHECKED_A_TURN = 8
"""How many queries are checked between two looks at the clock."""

DISCLOSED: dict[str, Any] = {
    "X-Request-Id": {
        "schema": {"type": "string"},
        "description": "the request's id: yours if you sent a tame one",
    },
    "X-Reco-Bundle": {"schema": {"type": "string"}, "description": "the bundle that answered"},
    "Server-Timing": {"schema": {"type": "string"}, "description": "milliseconds by stage"},
}
_DISCLOSED_SLATE: dict[str, Any] = {
    **DISCLOSED,
    "X-Reco-Model": {
        "schema": {"type": "string"},
        "description": "the model that answered, by its real name",
    },
    "X-Reco-Source": {"schema": {"type": "string"}, "description": "where the leading items came from"},
    "X-Reco-Degraded": {
        "schema": {"type": "string"},
        "description": "stages that were skipped or overran, by commas; absent when the line ran whole",
    },
    "X-Reco-Treatment": {
        "schema": {"type": "string"},
        "description": "experiment=treatment, by commas; absent where the user is in no experiment",
    },
}


def problem_answer(description: str) -> dict[str, Any]:
    """Describe an answer that is a problem, for the OpenAPI document."""
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


EVERYWHERE: dict[int | str, dict[str, Any]] = {
    401: problem_answer("no token, or an unknown one"),
    403: problem_answer("a token without the scope 'reco'"),
    422: problem_answer("a malformed request; `errors` names every fault"),
    500: problem_answer("the service failed; nothing is said of why"),
    503: problem_answer("no bundle is live yet"),
}
WITH_BODY: dict[int | str, dict[str, Any]] = {
    400: problem_answer("the body is not strict JSON"),
    413: problem_answer("the body is larger than 1 MiB"),
    415: problem_answer("the content type is not application/json"),
}

v1 = APIRouter(
    prefix=PREFIX,
    tags=["v1"],
    route_class=GuardedRoute,
    responses=EVERYWHERE,
)


@v1.post(
    "/recommend",
    response_model=RecommendAnswer,
    responses={
        **WITH_BODY,
        200: {"headers": _DISCLOSED_SLATE, "description": "a slate"},
        404: problem_answer("a user id above the range, or an unknown model"),
    },
)
async def recommend_items(request: Request, body: RecommendBody) -> Response:
    """Recommend k items to a user, or to whoever has a history, among what a filter lets through.

    An unknown user is no error: the answer is what is popular, and `source` says so.
    """
    services, deadline = services_of(request), deadline_of(request)
    if body.budget_ms is not None:
        deadline.lower(body.budget_ms / 1000)
    live = live_of(services)
    request_id: str = request.state.request_id
    query, assignment = _checked(body, live, services, ("body",), request_id)
    slate, recent = await slate_of(query, assignment.plan, live, services, deadline)
    answer = {"request_id": request_id, "bundle": live.bundle_id, **_described(slate, assignment)}
    log_shown(request, query, slate, assignment, live, recent)
    return slate_response(request, answer, slate, assignment.plan, live, assignment.header)


@v1.post(
    "/recommend:batch",
    response_model=BatchAnswer,
    responses={
        **WITH_BODY,
        200: {"headers": DISCLOSED, "description": "an outcome for every query, in order"},
    },
)
async def recommend_batch(request: Request, body: BatchBody) -> Response:
    """Answer many queries from one bundle under one budget.

    Each has an answer or a problem of its own. When the budget is spent the remaining ones are answered by what is
    popular, and their `degraded` says so.
    """
    services, deadline = services_of(request), deadline_of(request)
    if body.budget_ms is not None:
        deadline.lower(body.budget_ms / 1000)
    most = services.settings.batch_max
    if len(body.queries) > most:
        raise InvalidRequest(("body", "queries"), "too_long", f"List should have at most {most} items")
    live = live_of(services)
    request_id: str = request.state.request_id
    turn = _Turn(deadline)
    fit, faults = await _check_all(body, live, services, turn, request_id)
    recents = await recent_of([query for _, query, _ in fit], services, deadline)
    results: list[dict[str, Any]] = [{} for _ in body.queries]
    degraded: dict[str, None] = {}
    for (number, query, assignment), recent in zip(fit, recents, strict=True):
        try:
            slate = slate_for(query, assignment.plan, live, services, deadline, recent)
        except RequestError as error:
            faults[number] = [fault_of(_placed(error, ("body", "queries", number)))]
        else:
            degraded.update(dict.fromkeys(slate.degraded))
            described = _described(slate, assignment)
            results[number] = {"answer": {"request_id": request_id, "bundle": live.bundle_id, **described}}
            log_shown(request, query, slate, assignment, live, recent, part=number)
        await turn.over()
    for number, found in faults.items():
        results[number] = {"problem": problem_of(found, request_id)}
    timings = (("batch", deadline.now() - deadline.started_at),)
    answer = {
        "request_id": request_id,
        "bundle": live.bundle_id,
        "results": results,
        "timings_ms": _milliseconds(timings),
    }
    return bundle_response(answer, live, timings, deadline, degraded_header(degraded))


@v1.post(
    "/similar",
    response_model=SimilarAnswer,
    responses={
        **WITH_BODY,
        200: {"headers": DISCLOSED, "description": "neighbours, nearest first"},
        404: problem_answer("an unknown item or model"),
    },
)
async def similar_items(request: Request, body: SimilarBody) -> Response:
    """Name the items nearest to an item, as one model sees them."""
    services, deadline = services_of(request), deadline_of(request)
    live = live_of(services)
    check_kind(body.item_id, live.bundle.manifest.item_id_kind, ("body", "item_id"))
    k = _k(body.k, services, ("body",))
    model = live.resolve(body.model)
    began = deadline.now()
    found = similar(body.item_id, k, model.name, live)
    timings = (("similar", deadline.now() - began),)
    answer = {
        "request_id": request.state.request_id,
        "bundle": live.bundle_id,
        "model": model.name,
        "items": [{"item_id": item_id, "score": score} for item_id, score in found],
        "timings_ms": _milliseconds(timings),
    }
    return bundle_response(answer, live, timings, deadline, {"X-Reco-Model": model.name})


@v1.get(
    "/models",
    response_model=ModelsAnswer,
    responses={200: {"headers": DISCLOSED, "description": "what is served right now"}},
)
async def models(request: Request) -> Response:
    """List the served models: kind, vectors, how they are searched with what recall, and their offline metrics."""
    live = live_of(services_of(request))
    manifest = live.bundle.manifest
    default = live.models["default"].name
    named = sorted((name, model) for name, model in live.models.items() if name == model.name)
    answer = {
        "request_id": request.state.request_id,
        "bundle": live.bundle_id,
        "created_at": manifest.created_at,
        "default": default,
        "user_id_kind": manifest.user_id_kind,
        "item_id_kind": manifest.item_id_kind,
        "models": [_model(model, default=name == default) for name, model in named],
    }
    return bundle_response(answer, live, (), deadline_of(request), {})


# -- one query ---------------------------------------------------------------------------------------------------

Place = tuple[str | int, ...]


class _Malformed(Exception):
    """A query of a batch that breaks the schema."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults)
        self.faults = faults


def _query(raw: Any, place: Place) -> RecommendQuery:
    try:
        return RecommendQuery.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise _Malformed([Fault(422, f["type"], f["msg"], (*place, *f["loc"])) for f in found]) from None


class _Turn:
    """A batch's turn on the event loop: once it has lasted long enough, others run first."""

    __slots__ = ("_began", "_deadline")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline, self._began = deadline, deadline.now()

    async def over(self) -> None:
        """Let others run, if it is their turn."""
        if self._deadline.now() - self._began > _TURN_S:
            await asyncio.sleep(0)
            self._began = self._deadline.now()


async def _check_all(
    body: BatchBody, live: LiveBundle, services: Services, turn: _Turn, request_id: str
) -> tuple[list[tuple[int, Query, Assignment]], dict[int, list[Fault]]]:
    """Check a batch's queries: those that are fit, by number, and the faults of the others."""
    fit: list[tuple[int, Query, Assignment]] = []
    faults: dict[int, list[Fault]] = {}
    for number, raw in enumerate(body.queries):
        place = ("body", "queries", number)
        try:
            event_id = event_id_of(request_id, number)
            fit.append((number, *_checked(_query(raw, place), live, services, place, event_id)))
        except _Malformed as error:
            faults[number] = error.faults
        except RequestError as error:
            faults[number] = [fault_of(error)]
        if number % _CHECKED_A_TURN == 0:
            await turn.over()
    return fit, faults


def _placed(error: RequestError, place: Place) -> RequestError:
    """The same error, named at its query: the line doesn't know that it answers one of a batch."""
    if isinstance(error, InvalidRequest):
        return InvalidRequest((*place, *error.location[1:]), error.kind, str(error))
    return error


def _checked(
    asked: RecommendQuery, live: LiveBundle, services: Services, place: Place, event_id: str
) -> tuple[Query, Assignment]:
    """Check what only the live bundle and the settings know, and assign. Raises RequestError."""
    manifest = live.bundle.manifest
    if asked.user_id is None and asked.history is None:
        raise InvalidRequest((*place, "user_id"), "missing", "Give a user_id or a history")
    if asked.user_id is not None:
        check_kind(asked.user_id, manifest.user_id_kind, (*place, "user_id"))
        if isinstance(asked.user_id, int) and asked.user_id > services.settings.max_user_id:
            raise UserNotFound(asked.user_id)
    live.resolve(asked.model)
    _check_kinds(asked.history or (), manifest.item_id_kind, (*place, "history"))
    query = Query(
        user_id=asked.user_id,
        k=_k(asked.k, services, place),
        history=None if asked.history is None else tuple(asked.history),
        filter=None if asked.filter is None else _filter(asked.filter, manifest.item_id_kind, place),
        exclude_seen=asked.exclude_seen,
    )
    return assigned(query, asked.model, event_id, live, services)


def _filter(asked: FilterBody, kind: IdKind, place: Place) -> ItemFilter:
    _check_kinds(asked.allow or (), kind, (*place, "filter", "allow"))
    _check_kinds(asked.deny, kind, (*place, "filter", "deny"))
    return ItemFilter(
        allow=None if asked.allow is None else frozenset(asked.allow),
        deny=frozenset(asked.deny),
        attributes={name: tuple(values) for name, values in asked.attributes.items()},
    )


def _k(asked: int | None, services: Services, place: Place) -> int:
    settings = services.settings
    if asked is None:
        return settings.k
    if asked > settings.k_max:
        message = f"Input should be less than or equal to {settings.k_max}"
        raise InvalidRequest((*place, "k"), "less_than_equal", message)
    return asked


def check_kind(given: int | str, kind: IdKind, place: Place) -> None:
    """Raise InvalidRequest for an id of the other kind than the bundle's."""
    if isinstance(given, int) != (kind == "int64"):
        wanted, error = ("an integer", "int_type") if kind == "int64" else ("a string", "string_type")
        raise InvalidRequest(place, error, f"Input should be {wanted}: the live bundle's ids are")


def _check_kinds(given: Iterable[int | str], kind: IdKind, place: Place) -> None:
    for number, identifier in enumerate(given):
        check_kind(identifier, kind, (*place, number))


# -- answers -----------------------------------------------------------------------------------------------------


def _described(slate: Slate, assignment: Assignment) -> dict[str, Any]:
    return {
        "model": assignment.plan.model,
        "treatments": dict(assignment.treatments),
        "source": slate.source,
        "degraded": slate.degraded,
        "items": _places(slate),
        "timings_ms": _milliseconds(slate.timings),
    }


def _places(slate: Slate) -> list[dict[str, Any]]:
    places: list[dict[str, Any]] = [
        {"item_id": item_id, "score": score, "source": source}
        for item_id, score, source in zip(slate.item_ids, slate.scores, slate.sources, strict=True)
    ]
    if slate.found_by is not None:
        for place, names in zip(places, slate.found_by, strict=True):
            place["found_by"] = names
    return places


def _model(model: LiveModel, *, default: bool) -> dict[str, Any]:
    entry = model.data.entry
    retriever: RetrieverName | None = None
    recall: dict[str, Any] | None = None
    if isinstance(model.retriever, FactorsRetriever) and entry.retrieval is not None:
        retriever = model.retriever.name
        found = entry.retrieval.recall_of(retriever)
        recall = {"at_10": 1.0, "at_100": 1.0, "queries": None} if found is None else found.model_dump()
    return {
        "name": model.name,
        "kind": entry.kind,
        "default": default,
        "dim": entry.dim,
        "space": entry.space,
        "retriever": retriever,
        "recall": recall,
        "metrics": entry.metrics,
    }


def _milliseconds(timings: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {stage: round(seconds * 1000, 3) for stage, seconds in timings}
