"""Profile `explain`: why an item, as a percentage and a sentence.

    GET /explain/{model}/{user}/{item} -> {"p": 0 to 100, "explanation": str}

Factors models: p = floor(100 (.5 / (1 + e^-(5 s - 1)) + .5)) from a score s of .05 on, with the two titles that
contribute most; a fainter one is 50. Models whose lists are made of like users: the softmax of the list's scores. A
user of whom the model knows nothing: 85, popular now. Open to callers without a token, as its original is. Errors have
the envelope of `/reco`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict

from service.api.answering import live_of, recent_of
from service.api.guarded import GuardedRoute, deadline_of, services_of
from service.api.ids import parse_user_id
from service.bundle.ids import UNKNOWN
from service.domain import ItemId, Query
from service.errors import InvalidRequest, ItemNotFound
from service.recommender.explanation import Explanation
from service.recommender.explanation import explain as explained
from service.recommender.live import LiveBundle

_COLD = 85
_FAINT = 0.05
"""Below it a score says too little for a sentence of its own."""
_LEAST = 50
_NO_INTEGER = "Input should be a valid integer"


class ExplainedAnswer(BaseModel):
    """How sure, in percent, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"p": 97, "explanation": "Because you liked Alien and Aliens"}]}
    )

    p: int
    explanation: str


class OpenRoute(GuardedRoute):
    """Bounded and timed as every route, and open to everybody."""

    wants_token = False


def _error(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Errors"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    404: _error("an unknown user, item or model"),
    422: _error("a malformed id"),
    500: _error("the service failed"),
    503: _error("no bundle is live yet"),
}
explain = APIRouter(tags=["profile explain"], route_class=OpenRoute, responses=_ERRORS)


@explain.get("/explain/{model}/{user_id}/{item_id}", response_model=ExplainedAnswer)
async def explain_item(
    request: Request,
    model: Annotated[str, Path(description="a served model, or `default`", examples=["als"])],
    user_id: Annotated[str, Path(description="to whom", examples=["1"])],
    item_id: Annotated[str, Path(description="what", examples=["50"])],
) -> Response:
    """Explain an item to a user."""
    services, deadline = services_of(request), deadline_of(request)
    live = live_of(services)
    live.resolve(model)
    kind = live.bundle.manifest.user_id_kind
    user = parse_user_id(quote(user_id, safe="").encode(), kind, services.settings.max_user_id)
    query = Query(user, 1)
    (recent,) = await recent_of((query,), services, deadline)
    item = _item(item_id, live)
    found = explained(Query(user, 1, recent=recent.items), item, model, live)
    p, why = _said(found, user, live)
    return Response(orjson.dumps({"p": p, "explanation": why}), media_type="application/json")


def _item(text: str, live: LiveBundle) -> ItemId:
    """Read an item id. Raises InvalidRequest for what is no id of the bundle's kind, and ItemNotFound."""
    if live.bundle.manifest.item_id_kind == "str":
        item: ItemId = text
    elif text.isascii() and text.isdigit() and len(text) <= 18:
        item = int(text)
    else:
        raise InvalidRequest(("path", "item_id"), "int_parsing", _NO_INTEGER)
    if live.bundle.item_ids.row_of(item) == UNKNOWN:
        raise ItemNotFound(item)
    return item


def _said(found: Explanation, user: int | str, live: LiveBundle) -> tuple[int, str]:
    name = found.title or str(found.item_id)
    if found.method == "popular":
        return _COLD, "Popular now"
    if found.method == "neighbours":
        return _of_list(found, user, live), f"Users like you also liked {name}"
    score = found.score or 0.0
    if score < _FAINT:
        return _LEAST, "It may be something new for you"
    p = math.floor(100 * (0.5 / (1 + math.exp(-min(5 * score - 1, 700.0))) + 0.5))
    titles = [one.title or str(one.item_id) for one in found.contributions[:2] if one.weight > 0]
    return p, f"Because you liked {' and '.join(titles)}" if titles else "It fits what you like"


def _of_list(found: Explanation, user: int | str, live: LiveBundle) -> int:
    """Percent of the softmax over the user's list that the item has."""
    arrays = live.resolve(found.model).data.arrays
    row = live.bundle.user_ids.row_of(user)
    if found.score is None or row == UNKNOWN:
        return 0
    begin, end = int(arrays["indptr"][row]), int(arrays["indptr"][row + 1])
    scores = np.asarray(arrays["scores"][begin:end], np.float64)
    odds = np.exp(scores - scores.max())
    return math.floor(100 * math.exp(found.score - float(scores.max())) / float(odds.sum()))
