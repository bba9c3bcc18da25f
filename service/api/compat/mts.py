"""Profile `mts`: recommendations under a whitelist, approximate and brute force, as the MTS course's service has them.

    POST /api/v1/recommend_for_user       {"user_id", "item_whitelist": []} -> {"user_id", "item_ids"}
    POST /api/v1/recommend_bruteforce     the same by exact search (also without the prefix)

An empty whitelist lets every item through. A narrow one is searched exactly, so that it returns too few items only
when it holds too few. Here an unknown user is a 404, and errors are `{"detail": …}`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from service.api.answering import live_of, log_shown, ruled, slate_of, slate_response
from service.api.error_handlers import ErrorFamilies, Fault
from service.api.guarded import CompatRoute, deadline_of, services_of
from service.api.problems import MAX_FAULTS
from service.api.v1_schemas import MAX_LISTED, Identifier
from service.bundle.ids import UNKNOWN
from service.domain import ItemFilter, Plan, Query
from service.recommender.costs import StageCost
from service.recommender.live import LiveBundle
from service.recommender.plan import plan_for
from service.recommender.retrieval import FactorsRetriever

TOP_K = 50
N_NEIGHBORS = 200
PATHS = ("/api/v1/recommend_for_user", "/api/v1/recommend_bruteforce", "/recommend_bruteforce")
NOT_FOUND = "Item or user not found"


class WhitelistBody(BaseModel):
    """Who asks, among what."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"examples": [{"user_id": 1, "item_whitelist": [50, 181, 172]}]}
    )

    user_id: Identifier
    item_whitelist: Annotated[list[Identifier], Field(max_length=MAX_LISTED)] = []


class WhitelistAnswer(BaseModel):
    """Items, best first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": 1, "item_ids": [181, 50, 172]}]})

    user_id: int | str
    item_ids: list[int | str]


class DetailFault(BaseModel):
    """One fault of a malformed request."""

    loc: list[str | int]
    msg: str
    type: str


class Detail(BaseModel):
    """An error as FastAPI words it by itself: a sentence, or for 422 a list of faults."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": NOT_FOUND}]})

    detail: str | list[DetailFault]


def render(faults: Sequence[Fault], request_id: str) -> tuple[str, bytes]:  # noqa: ARG001 - the family has no place for it
    """Render as FastAPI does by itself."""
    if faults[0].status == 422:
        found = [
            {"loc": fault.location or (), "msg": fault.message, "type": fault.key}
            for fault in faults[:MAX_FAULTS]
        ]
        return "application/json", orjson.dumps({"detail": found})
    return "application/json", orjson.dumps({"detail": faults[0].message})


def join_families(families: ErrorFamilies) -> None:
    """Name this profile's envelope."""
    for path in PATHS:
        families.add(path, render)


_ERRORS: dict[int | str, dict[str, object]] = {
    400: {"model": Detail, "description": "the body is not strict JSON"},
    401: {"model": Detail, "description": "no token, or an unknown one"},
    403: {"model": Detail, "description": "a token without the scope 'reco'"},
    404: {"model": Detail, "description": "an unknown user, or a whitelist of unknown items only"},
    413: {"model": Detail, "description": "the body is larger than 1 MiB"},
    415: {"model": Detail, "description": "the content type is not application/json"},
    422: {"model": Detail, "description": "a malformed request"},
    500: {"model": Detail, "description": "the service failed"},
    503: {"model": Detail, "description": "no bundle is live yet"},
}

mts = APIRouter(
    tags=["profile mts"],
    route_class=CompatRoute,
    responses=_ERRORS,
)


@mts.post(PATHS[0], response_model=WhitelistAnswer)
async def recommend_for_user(request: Request, body: WhitelistBody) -> Response:
    """Recommend up to 50 of the whitelist's items to a user, by whatever retriever serves the default model."""
    return await _answer(request, body, live_of(services_of(request)))


@mts.post(PATHS[1], response_model=WhitelistAnswer)
@mts.post(PATHS[2], response_model=WhitelistAnswer)
async def recommend_bruteforce(request: Request, body: WhitelistBody) -> Response:
    """Recommend up to 50 of the whitelist's items to a user, by exact search."""
    return await _answer(request, body, _exact(request), "exact")


async def _answer(
    request: Request, body: WhitelistBody, live: LiveBundle, retriever: str | None = None
) -> Response:
    services, deadline = services_of(request), deadline_of(request)
    bundle = live.bundle
    if bundle.user_ids.row_of(body.user_id) == UNKNOWN:
        raise HTTPException(404, NOT_FOUND)
    allow: frozenset[int | str] | None = None
    if body.item_whitelist:
        allow = frozenset(body.item_whitelist)
        if not (bundle.item_ids.rows_of(allow) != UNKNOWN).any():
            raise HTTPException(404, NOT_FOUND)
    plan = Plan(plan_for("default", live).model, n_candidates=N_NEIGHBORS)
    query = Query(body.user_id, TOP_K, filter=None if allow is None else ItemFilter(allow=allow))
    assignment = ruled(plan, live, services)
    slate, recent = await slate_of(query, assignment.plan, live, services, deadline)
    log_shown(request, query, slate, assignment, live, recent, retriever=retriever)
    return slate_response(request, {"user_id": body.user_id, "item_ids": slate.item_ids}, slate, plan, live)


def _exact(request: Request) -> LiveBundle:
    """The live bundle with its default model searched exhaustively; made once a bundle, sharing the vectors."""
    live = live_of(services_of(request))
    model = live.models["default"]
    if not isinstance(model.retriever, FactorsRetriever) or model.retriever.name == "exact":
        return live
    made: tuple[LiveBundle, LiveBundle] | None = getattr(request.app.state, "mts_exact", None)
    if made is None or made[0] is not live:
        exhaustive = FactorsRetriever(model.data, live.bundle)
        exact = dataclasses.replace(
            model, retriever=exhaustive, retrieve_cost=StageCost(model.retrieve_cost.upper), recall_at_10=1.0
        )
        made = live, dataclasses.replace(live, models={**live.models, model.name: exact, "default": exact})
        request.app.state.mts_exact = made
    return made[1]
