"""Profile `handbook`: the movie service of the recommender handbook.

    GET /get_recommendation?user_id=&top_k=20 -> {"recommendations": [ids], "status": "success", "msg": null}
    GET /index?id=                            -> {item_id: score}

A request that can't be answered is still a 200 there: `status` is "error", `msg` says why, and `recommendations` is
empty (RECO_HANDBOOK_ERROR=null: null, as its code has it). Refused tokens, an unready service and a broken one keep
their statuses in the same envelope, so that proxies and clients see them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict

from service.api.answering import live_of, log_shown, ruled, slate_of, slate_response
from service.api.error_handlers import ErrorFamilies, Fault, Renderer
from service.api.guarded import CompatRoute, deadline_of, services_of
from service.api.ids import parse_k, parse_user_id
from service.domain import Plan, Slate
from service.domain import Query as Asked
from service.errors import InvalidRequest, ItemNotFound, ModelNotFound, UserNotFound
from service.recommender.live import LiveBundle
from service.recommender.plan import plan_for

TOP_K = 20
PATHS = ("/get_recommendation", "/index")
_STILL_200 = (InvalidRequest, UserNotFound, ItemNotFound, ModelNotFound)

OnError = Literal["empty", "null"]


EXAMPLES: list[Any] = [
    {"recommendations": [50, 181, 172], "status": "success", "msg": None},
    {"recommendations": [], "status": "error", "msg": "User 9999999999 not found"},
]


class HandbookAnswer(BaseModel):
    """Item ids, best first, or why there are none."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    recommendations: list[int | str] | None
    status: Literal["success", "error"]
    msg: str | None


def renderer(on_error: OnError) -> Renderer:
    """Envelope of this profile's errors."""

    def render(faults: Sequence[Fault], request_id: str) -> tuple[str, bytes]:  # noqa: ARG001 - the family has no place for it
        return "application/json", _failure("; ".join(fault.message for fault in faults), on_error)

    return render


def join_families(families: ErrorFamilies, on_error: OnError) -> None:
    """Name this profile's envelope."""
    for path in PATHS:
        families.add(path, renderer(on_error))


def _failure(message: str, on_error: OnError) -> bytes:
    nothing: list[int] | None = [] if on_error == "empty" else None
    return orjson.dumps({"recommendations": nothing, "status": "error", "msg": message})


class HandbookRoute(CompatRoute):
    """Answers 200 also to what can't be answered."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the guarded handler."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except _STILL_200 as error:
                message = str(error)
            except RequestValidationError as error:
                message = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
            on_error = services_of(request).settings.handbook_error
            return Response(_failure(message, on_error), media_type="application/json")

        return handler


_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": HandbookAnswer, "description": "no token, or an unknown one"},
    403: {"model": HandbookAnswer, "description": "a token without the scope 'reco'"},
    500: {"model": HandbookAnswer, "description": "the service failed"},
    503: {"model": HandbookAnswer, "description": "no bundle is live yet"},
}

handbook = APIRouter(tags=["profile handbook"], route_class=HandbookRoute, responses=_ERRORS)


@handbook.get(PATHS[0], response_model=HandbookAnswer)
async def get_recommendation(
    request: Request,
    user_id: Annotated[str, Query(description="who asks", examples=["1"])],
    top_k: Annotated[str, Query(description="how many items", pattern="^[0-9]{1,9}$", examples=["20"])] = str(
        TOP_K
    ),
) -> Response:
    """Recommend `top_k` items to a user; what can't be answered is a 200 too, with `status` "error"."""
    live = live_of(services_of(request))
    slate, plan = await _slate(request, live, "user_id", user_id, top_k)
    document = {"recommendations": slate.item_ids, "status": "success", "msg": None}
    return slate_response(request, document, slate, plan, live)


@handbook.get(
    PATHS[1],
    response_model=dict[str, float] | HandbookAnswer,
    responses={200: {"content": {"application/json": {"example": {"50": 1.21, "181": 1.13}}}}},
)
async def index(
    request: Request,
    identifier: Annotated[str, Query(alias="id", description="who asks", examples=["1"])],
) -> Response:
    """Map 20 items to their scores for a user, best first."""
    live = live_of(services_of(request))
    slate, plan = await _slate(request, live, "id", identifier, str(TOP_K))
    document = dict(zip(slate.item_ids, slate.scores, strict=True))
    return slate_response(request, document, slate, plan, live)


async def _slate(
    request: Request, live: LiveBundle, name: str, identifier: str, top_k: str
) -> tuple[Slate, Plan]:
    services = services_of(request)
    for parameter in (name, "top_k"):
        if len(request.query_params.getlist(parameter)) > 1:
            raise InvalidRequest(("query", parameter), "repeated", f"{parameter}: Input should be given once")
    kind = live.bundle.manifest.user_id_kind
    try:
        # The framework has decoded the value; the strict readers want it as it came.
        user_id = parse_user_id(quote(identifier, safe="").encode(), kind, services.settings.max_user_id)
        k = parse_k(b"k=" + quote(top_k, safe="").encode(), TOP_K, services.settings.k_max)
    except InvalidRequest as error:
        parameter = "top_k" if error.location == ("query", "k") else name
        raise InvalidRequest(("query", parameter), error.kind, f"{parameter}: {error}") from None
    assignment = ruled(plan_for("default", live), live, services)
    query = Asked(user_id, k)
    slate, recent = await slate_of(query, assignment.plan, live, services, deadline_of(request))
    log_shown(request, query, slate, assignment, live, recent)
    return slate, assignment.plan
