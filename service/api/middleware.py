"""What every route but the hot one gets around it: request id, cross-origin headers, one log line, one count."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access_log import RequestRecord
from service.api.cors import Cors
from service.api.services import Services

UNMATCHED = "unmatched"
"""The route label of a request for no route: labels are bounded by the routes."""


class Observed:
    """Pure ASGI, around the whole framework: also what the framework itself refuses is seen."""

    __slots__ = ("_app", "_cors", "_s")

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._s = app, services
        self._cors = Cors(services.settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        s = self._s
        started = s.clock()
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        request_id = s.request_ids.of(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id.decode("latin-1")
        status = 500

        async def add_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [*self._cors.headers(origin), (b"x-request-id", request_id)]
                if s.serving.draining:
                    added.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            if (
                scope["method"] == "OPTIONS"
                and origin is not None
                and b"access-control-request-method" in headers
            ):
                await self._answer_preflight(add_headers)
            else:
                await self._app(scope, receive, add_headers)
        except Exception as error:
            # The framework has answered 500 and raises again so that somebody hears of it: here.
            s.log.event(
                time.time(), "ERROR", "a route broke", error=error, request_id=request_id.decode("latin-1")
            )
        finally:
            route: Any = scope.get("route")
            s.telemetry.http.labels(getattr(route, "path", UNMATCHED), status).inc()
            if s.log.requests:
                model, source, degraded = scope["state"].get("disclosed", (None, None, ()))
                s.log.request(
                    RequestRecord(
                        time.time(), scope["method"], scope["scheme"], headers.get(b"host", b"")[:256],
                        (scope.get("raw_path") or scope["path"].encode())[:2048], scope["query_string"][:2048],
                        status, s.clock() - started, request_id, model, source, degraded,
                    )
                )  # fmt: skip

    async def _answer_preflight(self, send: Send) -> None:
        headers = [*self._cors.preflight_only(), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
