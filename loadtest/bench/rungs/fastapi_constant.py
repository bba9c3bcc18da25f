"""A lean FastAPI route: typed path, no response model, a ready response."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import Response

from loadtest.bench.rungs import CONSTANT

app = FastAPI()


@app.get("/reco/{model}/{user_id}")
async def answer(model: str, user_id: int) -> Response:  # noqa: ARG001 - parsed, as a service would
    """Answer."""
    return Response(CONSTANT, media_type="application/json")
