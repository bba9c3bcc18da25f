"""A service the way course templates have it: threadpool handlers, two `BaseHTTPMiddleware`, a JSON log line a request.

The same search as `idiomatic`'s, and as little else. `BENCH_TOKEN`: the token it lets in; see `nearest` for the rest.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import time
import uuid
from contextvars import ContextVar
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from loadtest.bench.rungs.nearest import Nearest

_request_id: ContextVar[str] = ContextVar("request_id", default="-")
_token = os.environ["BENCH_TOKEN"]
_nearest = Nearest()
_log = logging.getLogger("access")
_bearer = HTTPBearer()


class _JsonLines(logging.Formatter):
    """A record as one JSON line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format it."""
        told = {
            "time": self.formatTime(record), "level": record.levelname, "logger": record.name, "pid": os.getpid(),
            "request_id": _request_id.get(), "message": record.getMessage(),
        }  # fmt: skip
        return json.dumps(told)


class RecoResponse(BaseModel):
    """The answer."""

    user_id: int
    items: list[int]


class NamesRequests(BaseHTTPMiddleware):
    """Gives every request an id."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Name it."""
        _request_id.set(request.headers.get("x-request-id") or uuid.uuid4().hex)
        return await call_next(request)


class LogsRequests(BaseHTTPMiddleware):
    """Logs every request."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Log it."""
        began = time.monotonic()
        response = await call_next(request)
        _log.info(
            "%s %s %s %.6f", request.method, request.url, response.status_code, time.monotonic() - began
        )
        return response


def authorize(credentials: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> None:
    """Let the token's holder in. Raises HTTPException."""
    if not secrets.compare_digest(credentials.credentials, _token):
        raise HTTPException(401)


_handler = logging.StreamHandler(sys.stdout)
_handler.setFormatter(_JsonLines())
_log.addHandler(_handler)
_log.setLevel(logging.INFO)
app = FastAPI()
app.add_middleware(LogsRequests)
app.add_middleware(NamesRequests)


@app.get("/reco/{model_name}/{user_id}", response_model=RecoResponse, dependencies=[Depends(authorize)])
def recommend(model_name: str, user_id: int) -> RecoResponse:
    """Answer the nearest items of a known user. Raises HTTPException for another model or user."""
    items = _nearest.of(user_id)
    if items is None or model_name != os.environ["BENCH_MODEL"]:
        raise HTTPException(404)
    return RecoResponse(user_id=user_id, items=items)
