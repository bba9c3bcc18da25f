"""The route class of everything that takes a JSON body: token first, then a bounded body, then strict JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any, ClassVar

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.api.admission import AGE
from service.api.auth import Bearer
from service.api.ids import parse_budget_s
from service.api.services import Services
from service.domain import Deadline
from service.errors import InvalidRequest

MAX_BODY_BYTES = 1 << 20
MAX_OBJECTS = 10_000
MAX_KEYS = 256
"""Of one object. A fault a key, and a name a fault, would make a megabyte of unknown keys cost seconds."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def services_of(request: Request) -> Services:
    """The process's working parts."""
    services: Services = request.app.state.services
    return services


def deadline_of(request: Request) -> Deadline:
    """The request's one deadline, counted from where a guarded route took it."""
    deadline: Deadline = request.state.deadline
    return deadline


def parse_json(raw: bytes) -> Any:
    """Read strict JSON: UTF-8, no NaN, no lone surrogates, nesting and objects bounded, no key twice.

    Raises HTTPException 400.
    """
    if raw.count(b"{") > MAX_OBJECTS:
        raise HTTPException(400, f"The body is not acceptable JSON: it holds more than {MAX_OBJECTS} objects")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"The body is not JSON: {error.msg} at character {error.pos}") from None
    try:
        # orjson keeps the last of two equal keys; which one a proxy before us read is anybody's guess.
        _CHECKING.decode(raw.decode())
    except (RecursionError, ValueError) as error:
        reason = (
            str(error) if isinstance(error, _Unfit) else "it is nested too deep or holds too long a number"
        )
        raise HTTPException(400, f"The body is not acceptable JSON: {reason}") from None
    return document


class _Unfit(ValueError):
    """An object with too many keys, or one key twice."""


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > MAX_KEYS:
        raise _Unfit(f"an object holds more than {MAX_KEYS} keys")
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Unfit("an object holds a key twice")


_CHECKING = json.JSONDecoder(object_pairs_hook=_check_keys)


class GuardedRequest(Request):
    """A request whose body is read up to a limit and parsed strictly."""

    async def body(self) -> bytes:
        """Read it. Raises HTTPException 413 as soon as it is known to be too large."""
        if not hasattr(self, "_body"):
            declared = self.headers.get("content-length", "")
            if (
                declared.isascii()
                and declared.isdigit()
                and (len(declared) > 18 or int(declared) > MAX_BODY_BYTES)
            ):
                raise HTTPException(413, f"The body may hold {MAX_BODY_BYTES} bytes")
            read = bytearray()
            async for chunk in self.stream():
                read += chunk
                if len(read) > MAX_BODY_BYTES:
                    raise HTTPException(413, f"The body may hold {MAX_BODY_BYTES} bytes")
            self._body = bytes(read)
            if read and not _says_json(self.headers.getlist("content-type")):
                raise HTTPException(415, "The content type must be application/json")
        return self._body

    async def json(self) -> Any:
        """Parse it."""
        return parse_json(await self.body())


def _says_json(content_types: list[str]) -> bool:
    if len(content_types) != 1:
        return False
    if content_types[0] == "application/json":  # as nearly always
        return True
    message = Message()
    try:
        message["content-type"] = content_types[0]
    except ValueError:  # line ends in a header's value
        return False
    return message.get_content_type() == "application/json"


class GuardedRoute(APIRoute):
    """Admits the caller before a byte of the body is read, and starts the deadline."""

    wants_token: ClassVar[bool] = True
    """Whether this route is for holders of a token only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.wants_token:
            # A dependency would declare it, too, and be resolved for every request.
            kwargs["openapi_extra"] = {**(kwargs.get("openapi_extra") or {}), "security": [{"bearer": []}]}
        super().__init__(*args, **kwargs)

    def get_route_handler(self) -> Handler:
        """Wrap the framework's handler."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            services = services_of(request)
            request.state.deadline = deadline = Deadline(
                services.settings.budget_s, clock=services.clock, age=request.scope.get(AGE, 0.0)
            )
            headers = request.scope["headers"]
            if self.asks_for_token(services):
                services.gate.admit(Bearer([value for name, value in headers if name == b"authorization"]))
            budgets = [value for name, value in headers if name == b"x-reco-budget-ms"]
            if len(budgets) > 1:
                raise InvalidRequest(
                    ("header", "x-reco-budget-ms"), "float_parsing", "Input should be given once"
                )
            for budget in budgets:
                deadline.lower(parse_budget_s(budget, services.settings.budget_s))
            return await handle(GuardedRequest(request.scope, request.receive))

        return guarded

    def asks_for_token(self, services: Services) -> bool:  # noqa: ARG002 - a subclass asks the settings
        """Whether a token is asked for under these settings."""
        return self.wants_token


class CompatRoute(GuardedRoute):
    """The same for the compatibility routes, whose originals knew no tokens: RECO_COMPAT_AUTH=off opens them."""

    def asks_for_token(self, services: Services) -> bool:
        """As the settings say."""
        return services.settings.compat_auth
