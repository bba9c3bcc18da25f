"""Health and metrics: open to everybody, free of dependencies, outside every limit."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from service.api.services import Services
from service.recommender.live import LiveBundle
from service.telemetry import FLUSH_PERIOD_S, LiveFacts

STALLED_AFTER_S = 10.0

health = APIRouter(tags=["health"])
metrics = APIRouter(tags=["health"])


def _services(request: Request) -> Services | None:
    services: Services | None = request.app.state.services
    return services


@health.get("/health", response_model=str)
async def alive() -> str:
    """Say that the process answers."""
    return "I am alive"


@health.get("/health/live", responses={503: {"description": "the event loop has stalled"}})
async def live(request: Request) -> JSONResponse:
    """Liveness: the event loop comes round. Depends on nothing else."""
    services = _services(request)
    late = 0.0 if services is None else services.clock() - services.serving.heartbeat_at
    stalled = late > STALLED_AFTER_S
    document = {"status": "stalled" if stalled else "alive", "seconds_since_heartbeat": round(late, 3)}
    return JSONResponse(document, 503 if stalled else 200)


@health.get(
    "/health/ready", responses={503: {"description": "no bundle is live, or the service is draining"}}
)
async def ready(request: Request) -> JSONResponse:
    """Readiness: a verified bundle is live and the service is not draining."""
    services = _services(request)
    reason = "starting" if services is None else services.serving.unready_because
    if services is None or reason is not None:
        return JSONResponse({"status": "unready", "reason": reason}, 503, {"Retry-After": "1"})
    live_bundle = services.serving.live
    document: dict[str, Any] = {
        "status": "ready",
        "bundle": None if live_bundle is None else live_bundle.bundle_id,
    }
    return JSONResponse(document)


@metrics.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def exposition(request: Request) -> Response:
    """Prometheus metrics, summed over all workers."""
    services = _services(request)
    if services is None:
        return Response(status_code=503)
    telemetry = services.telemetry
    if telemetry.multiprocess:
        # By then every worker has flushed what it answered before this scrape came.
        await asyncio.sleep(2 * FLUSH_PERIOD_S)
    services.flush_counts()
    if services.serving.live is not None:
        _tell(telemetry.facts, services.serving.live)
    return Response(await run_in_threadpool(telemetry.exposition), media_type=CONTENT_TYPE_LATEST)


def _tell(facts: LiveFacts, live: LiveBundle) -> None:
    manifest = live.bundle.manifest
    facts.bundle = (live.bundle_id, manifest.created_at, manifest.data.name)
    facts.recalls = tuple(
        (name, 10, model.recall_at_10) for name, model in live.models.items() if name == model.name
    )
