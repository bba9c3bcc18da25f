"""Profile `botify`: the music service of a recommender course, as its simulator and its notebooks know it.

    GET  /               -> {"status": "alive", "message": …}
    GET  /track/{track}  -> {"track", "artist", "title", "recommendations"}
    POST /next/{user}    {"track", "time"} -> {"user", "track"}
    POST /last/{user}    {"track", "time"} -> {"user"}

No tokens here. Bodies are Flask's bytes: JSON with spaces, ASCII, a line end. Errors are `{"message": …}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from service.api.answering import degraded_header
from service.api.compat.botify_body import MISSING, Malformed, read_listen
from service.api.compat.botify_station import Station
from service.api.error_handlers import ErrorFamilies, Fault
from service.api.guarded import GuardedRoute, deadline_of
from service.bundle.ids import UNKNOWN
from service.errors import InvalidRequest, NotReady

ALIVE: dict[str, Any] = {"status": "alive", "message": "welcome to botify, the best toy music recommender"}
PREFIXES = ("/track/", "/next/", "/last/")
NOT_ALLOWED = "The method is not allowed for the requested URL."
_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_USER = {"schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}, "example": 7}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["track", "time"],
                "properties": {
                    "track": {"type": "integer", "description": "the track that has ended"},
                    "time": {"type": "number", "description": "the share of it that was heard, 0 to 1"},
                },
            },
            "example": {"track": 10, "time": 0.8},
        }
    },
}


class Alive(BaseModel):
    """A greeting."""

    model_config = ConfigDict(json_schema_extra={"examples": [ALIVE]})

    status: str
    message: str


class TrackAnswer(BaseModel):
    """A track of the catalogue."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"track": 1, "artist": "An artist", "title": "A title", "recommendations": [7, 9]}]
        }
    )

    track: int
    artist: str
    title: str
    recommendations: list[int]


class NextAnswer(BaseModel):
    """What to play."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": 7, "track": 12}]})

    user: int
    track: int


class LastAnswer(BaseModel):
    """Goodbye."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": 7}]})

    user: int


class BotifyError(BaseModel):
    """What is wrong; where it is a field, by the field's name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"message": {"time": MISSING}}]})

    message: str | dict[str, str]


class NoTrack(BaseModel):
    """There is no such track."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Track not found"}]})

    description: str


def flask_json(document: Any) -> bytes:
    """Write JSON as Flask-RESTful does."""
    return json.dumps(document).encode() + b"\n"


def render(faults: Sequence[Fault], request_id: str) -> tuple[str, bytes]:  # noqa: ARG001 - the family has no place for it
    """Render as Flask-RESTful does."""
    message = NOT_ALLOWED if faults[0].status == 405 else faults[0].message
    return "application/json", flask_json({"message": message})


def join_families(families: ErrorFamilies) -> None:
    """Name this profile's envelope."""
    families.add_exact("/", render)
    for prefix in PREFIXES:
        families.add(prefix, render)


class BotifyRoute(GuardedRoute):
    """Open to everybody, as botify is, and a malformed request is a 400."""

    wants_token = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the guarded handler."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except Malformed as error:
                return _answer({"message": error.message}, error.status)
            except InvalidRequest as error:  # the budget's header
                return _answer({"message": str(error)}, 400)

        return handler


_MALFORMED: dict[int | str, dict[str, Any]] = {
    400: {"model": BotifyError, "description": "a field is missing or no number, or the body is not JSON"},
    404: {"model": BotifyError, "description": "the user is no whole number"},
    413: {"model": BotifyError, "description": "the body is larger than 1 MiB"},
}
_ALWAYS: dict[int | str, dict[str, Any]] = {
    500: {"model": BotifyError, "description": "the service failed"},
    503: {"model": BotifyError, "description": "no bundle is live yet"},
}
_USER_PARAMETER = {"parameters": [{"name": "user", "in": "path", "required": True, **_USER}]}

botify = APIRouter(tags=["profile botify"], route_class=BotifyRoute, responses=_ALWAYS)


@botify.get("/", response_model=Alive)
async def hello() -> Response:
    """Greet."""
    return _answer(ALIVE)


@botify.get(
    "/track/{track}",
    response_model=TrackAnswer,
    responses={404: {"model": NoTrack, "description": "there is no such track"}},
    openapi_extra={"parameters": [{"name": "track", "in": "path", "required": True, **_USER, "example": 10}]},
)
async def track(request: Request) -> Response:
    """Tell of a track. Its recommendations are the list that model 'contextual' has for it."""
    tracks = _station(request).tracks()
    number = _number(request, "track")
    row = UNKNOWN if number is None else tracks.row_of(number)
    if number is None:
        return _answer({"message": "Not Found"}, 404)
    if row == UNKNOWN:
        return _answer({"description": "Track not found"}, 404)
    return _answer(
        {
            "track": number,
            "artist": tracks.artist(row),
            "title": tracks.title(row),
            "recommendations": _station(request).list_of(number),
        }
    )


@botify.post(
    "/next/{user}",
    response_model=NextAnswer,
    responses=_MALFORMED,
    openapi_extra={"requestBody": _BODY, **_USER_PARAMETER},
)
async def next_track(request: Request) -> Response:
    """Take note of the track that has ended, and say what to play next."""
    user = _number(request, "user")
    if user is None:
        return _answer({"message": "Not Found"}, 404)
    listen = await read_listen(request)
    played = await _station(request).next(user, listen, deadline_of(request))
    headers = {"X-Reco-Bundle": played.bundle_id, **degraded_header(("history",) if played.degraded else ())}
    return Response(b'{"user": %d, "track": %d}\n' % (user, played.track), 200, headers, "application/json")


@botify.post(
    "/last/{user}",
    response_model=LastAnswer,
    responses=_MALFORMED,
    openapi_extra={"requestBody": _BODY, **_USER_PARAMETER},
)
async def last_track(request: Request) -> Response:
    """Take note of the session's last track."""
    user = _number(request, "user")
    if user is None:
        return _answer({"message": "Not Found"}, 404)
    listen = await read_listen(request)
    degraded = await _station(request).last(user, listen, deadline_of(request))
    headers = degraded_header(("history",) if degraded else ())
    return Response(b'{"user": %d}\n' % user, 200, headers, "application/json")


def _answer(document: Any, status: int = 200) -> Response:
    return Response(flask_json(document), status, media_type="application/json")


def _number(request: Request, name: str) -> int | None:
    text = request.path_params[name]
    return int(text) if _ID.fullmatch(text) else None


def _station(request: Request) -> Station:
    station: Station | None = request.app.state.station
    if station is None:
        raise NotReady
    return station
