"""A plain Starlette route with a constant answer."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loadtest.bench.rungs import CONSTANT


async def answer(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
    """Answer."""
    return Response(CONSTANT, media_type="application/json")


app = Starlette(routes=[Route("/reco/{model}/{user_id:int}", answer)])
