"""The least that uvicorn can be asked to do: one answer, the same for every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from loadtest.bench.rungs import CONSTANT

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(CONSTANT))],
}
_BODY = {"type": "http.response.body", "body": CONSTANT}


async def app(scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:  # noqa: ARG001 - ASGI
    """Answer."""
    if scope["type"] == "http":
        await send(_START)
        await send(_BODY)
