"""POST /v1/explain: why a model gives a user an item."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.answering import bundle_response, live_of, recent_of
from service.api.guarded import GuardedRoute, deadline_of, services_of
from service.api.services import Services
from service.api.v1 import DISCLOSED, EVERYWHERE, PREFIX, WITH_BODY, check_kind, problem_answer
from service.api.v1_schemas import MAX_HISTORY, Identifier, ModelName
from service.domain import Query
from service.errors import InvalidRequest, UserNotFound
from service.recommender.explanation import Explanation
from service.recommender.explanation import explain as explained
from service.recommender.live import LiveBundle
from service.recommender.ranking.attribution import RankerScore

MOST_TOLD = 20


class ExplainBody(BaseModel):
    """Whom an item is explained to, by their id or by a history of their own."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True,
        json_schema_extra={"examples": [{"user_id": 1, "item_id": 50, "model": "als"}]},
    )  # fmt: skip

    user_id: Identifier | None = None
    item_id: Identifier
    model: ModelName = "default"
    history: Annotated[list[Identifier], Field(max_length=MAX_HISTORY)] | None = Field(
        None, description="item ids, oldest first, in the place of what is known of the user"
    )
    most: Annotated[int, Field(ge=1, le=MAX_HISTORY)] = Field(
        MOST_TOLD, description="how many contributions are told, the largest first"
    )


class ContributionAnswer(BaseModel):
    """An item of the history."""

    item_id: int | str
    title: str | None
    weight: float = Field(description="its part of the score (method parts), or its cosine (alike)")


class FeatureAnswer(BaseModel):
    """A feature of the ranker."""

    feature: str
    contribution: float = Field(description="its part of the ranker's score")
    value: float | None = Field(description="null where nothing is known")


class RankerAnswer(BaseModel):
    """A ranker's own score: the sum of `base`, all contributions and `others`."""

    model: str
    attribution: Literal["path_unweighted"] = Field(
        description="each split's change of expectation, a node expecting the plain mean of its two children"
    )
    score: float
    base: float = Field(description="what the trees expect before they ask anything")
    contributions: list[FeatureAnswer] = Field(description="largest in size first")
    others: float = Field(description="sum of the contributions that are not told")


class ExplainAnswer(BaseModel):
    """Why. The score is the sum of all contributions and the remainder where the method is `parts`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "5f0c8a4e3d7b-1a", "bundle": "20260101-3f2a9c", "model": "als", "item_id": 50,
                    "title": "Star Wars (1977)", "method": "parts", "score": 0.81,
                    "contributions": [{"item_id": 181, "title": "Return of the Jedi (1983)", "weight": 0.52}],
                    "others": 0.29, "remainder": 0.0, "neighbours": 0, "holders": 0, "place": None,
                    "ranker": None, "text": "You know Return of the Jedi (1983).",
                }
            ]
        }
    )  # fmt: skip

    request_id: str
    bundle: str
    model: str
    item_id: int | str
    title: str | None
    method: Literal["parts", "neighbours", "alike", "popular"]
    score: float | None = Field(description="null where the model gives this user none of this item")
    contributions: list[ContributionAnswer]
    others: float = Field(description="sum of the contributions that are not told")
    remainder: float = Field(description="part of the score that no item of the history accounts for")
    neighbours: int = Field(description="users who share two items or more of the history")
    holders: int = Field(description="those of them who have the item")
    place: int | None = Field(None, description="place among what is popular, from 1")
    ranker: RankerAnswer | None = Field(
        None, description="of a two_stage model whose pool has the item, what its trees make of it"
    )
    text: str = Field(description="the same as a sentence")


router = APIRouter(prefix=PREFIX, tags=["v1"], route_class=GuardedRoute, responses=EVERYWHERE)


@router.post(
    "/explain",
    response_model=ExplainAnswer,
    responses={
        **WITH_BODY,
        200: {"headers": DISCLOSED, "description": "what the score is made of"},
        404: problem_answer("a user id above the range, an unknown item or model"),
    },
)
async def explain(request: Request, body: ExplainBody) -> Response:
    """Explain an item: which items of a user's history a model's score is made of, or what else speaks for it."""
    services, deadline = services_of(request), deadline_of(request)
    live = live_of(services)
    query = _query(body, live, services)
    (recent,) = await recent_of((query,), services, deadline)
    began = deadline.now()
    found = explained(
        Query(query.user_id, 1, history=query.history, recent=recent.items), body.item_id, body.model, live
    )
    timings = (("explain", deadline.now() - began),)
    told = found.contributions[: body.most]
    document: dict[str, Any] = {
        "request_id": request.state.request_id,
        "bundle": live.bundle_id,
        "model": found.model,
        "item_id": found.item_id,
        "title": found.title,
        "method": found.method,
        "score": found.score,
        "contributions": [{"item_id": one.item_id, "title": one.title, "weight": one.weight} for one in told],
        "others": sum(one.weight for one in found.contributions[body.most :])
        if found.method == "parts"
        else 0.0,
        "remainder": found.remainder,
        "neighbours": found.neighbours,
        "holders": found.holders,
        "place": found.place,
        "ranker": None if found.ranker is None else _of_ranker(found.ranker, body.most),
        "text": text_of(found),
    }
    return bundle_response(document, live, timings, deadline, {"X-Reco-Model": found.model})


def _of_ranker(found: RankerScore, most: int) -> dict[str, Any]:
    return {
        "model": found.model,
        "attribution": "path_unweighted",
        "score": found.score,
        "base": found.base,
        "contributions": [
            {"feature": one.feature, "contribution": one.contribution, "value": one.value}
            for one in found.contributions[:most]
        ],
        "others": sum(one.contribution for one in found.contributions[most:]),
    }


def text_of(found: Explanation) -> str:
    """Say it in a sentence, in the words of the catalogue's titles."""
    if found.method == "neighbours":
        return f"{found.holders} of {found.neighbours} users who share history with you have it."
    speaking = [_name(one.item_id, one.title) for one in found.contributions[:2] if one.weight > 0]
    if speaking:
        return f"You know {' and '.join(speaking)}."
    return "It is popular." if found.place is not None else "Nothing that is known of you speaks for it."


def _name(item_id: int | str, title: str | None) -> str:
    return title or str(item_id)


def _query(body: ExplainBody, live: LiveBundle, services: Services) -> Query:
    manifest = live.bundle.manifest
    if body.user_id is None and body.history is None:
        raise InvalidRequest(("body", "user_id"), "missing", "Give a user_id or a history")
    if body.user_id is not None:
        check_kind(body.user_id, manifest.user_id_kind, ("body", "user_id"))
        if isinstance(body.user_id, int) and body.user_id > services.settings.max_user_id:
            raise UserNotFound(body.user_id)
    check_kind(body.item_id, manifest.item_id_kind, ("body", "item_id"))
    for number, item_id in enumerate(body.history or ()):
        check_kind(item_id, manifest.item_id_kind, ("body", "history", number))
    history = None if body.history is None else tuple(body.history)
    return Query(body.user_id, 1, history=history)
