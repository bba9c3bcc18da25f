"""What botify's clients post, read as botify's parser (Flask-RESTful 0.3.9 on Flask 2.0.1) reads it.

Recorded from that stack: numbers in strings are taken, floats are cut to whole tracks, and a refusal is a 400 that
names the field. Stricter here: only ASCII digits, no `1_0`, nothing null, not finite or beyond 63 bits.
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson
from starlette.requests import Request

from service.api.guarded import MAX_BODY_BYTES
from service.state.listens import Listen

MISSING = "Missing required parameter in the JSON body"
NOT_UNDERSTOOD = "The browser (or proxy) sent a request that this server could not understand."
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?\s*", re.ASCII)
_MOST = 2**63
_SHOWN = 80


class Malformed(Exception):
    """A body that can't be taken. `message`: what the answer's `message` is, a sentence or field -> sentence."""

    def __init__(self, message: str | dict[str, str], status: int = 400) -> None:
        self.message, self.status = message, status
        super().__init__(str(message))


async def read_listen(request: Request) -> Listen:
    """Read the track and its time. Raises Malformed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Malformed(f"The body may hold {MAX_BODY_BYTES} bytes.", 413)
    return listen_of(request.headers.get("content-type", ""), bytes(body))


def listen_of(content_type: str, body: bytes) -> Listen:
    """Read a body. One that is not declared to be JSON has no fields. Raises Malformed."""
    document: Any = None
    if _says_json(content_type):
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Malformed(NOT_UNDERSTOOD) from None
    fields = document if isinstance(document, dict) else {}
    return Listen(_field(fields, "track", _track), _field(fields, "time", _time))


def _says_json(content_type: str) -> bool:
    name = content_type.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


def _field(fields: dict[str, Any], name: str, read: Any) -> Any:
    if name not in fields:
        raise Malformed({name: MISSING})
    value = fields[name]
    if value is None:
        raise Malformed({name: "Must not be null!"})
    try:
        return read(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed({name: str(error)}) from None


def _track(value: Any) -> int:
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError(f"invalid literal for int() with base 10: {value[:_SHOWN]!r}")
    track = int(value)
    if not -_MOST <= track < _MOST:
        raise ValueError("a track has at most 63 bits")
    return track


def _time(value: Any) -> float:
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise ValueError(f"could not convert string to float: {value[:_SHOWN]!r}")
    time = float(value)
    if not math.isfinite(time):
        raise ValueError("a time is finite")
    return time
