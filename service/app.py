"""`create_app(settings)`: the FastAPI app with the hot route inside. Only its lifespan builds objects."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access_log import AccessLog
from service.api.auth import Gate
from service.api.error_handlers import ErrorFamilies, register_error_handlers
from service.api.health import health, metrics
from service.api.middleware import Observed
from service.api.reco import PREFIX, RecoRoute, answer_not_ready
from service.api.routes import add_routes
from service.api.services import Services
from service.bundle.reader import Bundle, load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Clock
from service.errors import InputError
from service.events.log import EventLog, LogOptions, Say
from service.events.metrics import EventCounts
from service.recommender.live import LiveBundle, go_live
from service.settings import Settings
from service.state.open import open_history
from service.telemetry import FLUSH_PERIOD_S, Telemetry

_TOKENS_POLL_S = 1.0
_STDOUT = 1
_MB = 1 << 20


class RecoApp(FastAPI):
    """FastAPI with one door before it: `/reco/` goes straight to its endpoint, all else through the framework."""

    hot: ASGIApp | None = None
    """The endpoint of /reco/; None while the lifespan has not begun or has ended."""
    observed: ASGIApp | None = None
    """The framework with what every other route gets around it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch a connection."""
        if scope["type"] == "http":
            if scope["path"].startswith(PREFIX):
                await (self.hot or answer_not_ready)(scope, receive, send)
                return
            if self.observed is not None:
                await self.observed(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    load: Callable[[Path], Bundle] = load_bundle,
    live: LiveBundle | None = None,
    clock: Clock = time.perf_counter,
) -> RecoApp:
    """Make the app; nothing is read or built before its lifespan begins.

    `live`: a bundle made live already (before a fork, so that workers share its memory). Without it the lifespan reads
    the published one; a bundle that is refused, or settings without a token, end the start-up with BundleRefused or
    InputError.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = _build(settings, clock)
        services.serving.live = live if live is not None else _read_published(settings, load, clock)
        services.serving.heartbeat_at = clock()
        services.log.start()
        if services.events is not None:
            services.events.start()
        if services.history is not None:
            await services.history.start()
        assert isinstance(app, RecoApp)
        framework = super(RecoApp, app).__call__
        app.state.services = services
        hot = RecoRoute(services)
        app.hot, app.observed = hot, Observed(framework, services)
        tasks = [asyncio.create_task(_heartbeat(services, hot)), asyncio.create_task(_watch_tokens(services))]
        try:
            yield
        finally:
            services.serving.draining = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if services.events is not None:
                await services.events.close()
            if services.history is not None:
                await services.history.close()
            services.flush_counts()
            app.hot = app.observed = None
            services.log.stop()

    # One address a resource; and a redirect can't be made of a query string that is not UTF-8.
    app = RecoApp(title="Recommendations", version="1", lifespan=lifespan, redirect_slashes=False)
    app.state.services = None
    app.state.families = ErrorFamilies()
    register_error_handlers(app, app.state.families, settings.missing_token_status)
    app.include_router(health)
    if settings.admin_port is None:
        app.include_router(metrics)
    add_routes(app, app.state.families, settings)
    return app


def create_admin_app(main: RecoApp) -> FastAPI:
    """Make the app of the admin port: health and metrics of `main`, whose lifespan must have begun."""
    app = FastAPI(title="Administration", openapi_url=None)
    app.state.services = main.state.services
    app.include_router(health)
    app.include_router(metrics)
    return app


def _build(settings: Settings, clock: Clock) -> Services:
    log = AccessLog(
        descriptor=_STDOUT,
        level=settings.log_level,
        requests=settings.access_log,
        show_user_ids=settings.log_user_ids,
    )
    telemetry = Telemetry(budget_s=settings.budget_s, worker_slot=settings.worker_slot)
    gate = Gate(settings)

    def say(level: str, message: str, **fields: Any) -> None:
        log.event(time.time(), level, message, **fields)

    history = open_history(settings, telemetry, say)
    events = _event_log(settings, telemetry, say)
    return Services(settings, gate, telemetry, log, clock, events=events, history=history)


def _event_log(settings: Settings, telemetry: Telemetry, say: Say) -> EventLog | None:
    if settings.events_dir is None:
        return None
    options = LogOptions(
        segment_bytes=int(settings.events_segment_mb * _MB),
        keep_bytes=int(settings.events_retain_mb * _MB),
        keep_days=settings.events_retain_days,
        wait_s=settings.events_wait_ms / 1000,
    )
    return EventLog(
        settings.events_dir,
        EventCounts(telemetry),
        slot=settings.worker_slot or 0,
        options=options,
        say=say,
    )


def _read_published(settings: Settings, load: Callable[[Path], Bundle], clock: Clock) -> LiveBundle:
    return go_live(
        load(ArtifactStore(settings.artifacts).current()), retriever=settings.retriever, clock=clock
    )


async def _heartbeat(services: Services, hot: RecoRoute) -> None:
    """Show that the loop comes round, follow a reload, and hand on what was counted."""
    serving, telemetry, clock = services.serving, services.telemetry, services.clock
    failing = False
    while True:
        serving.heartbeat_at = clock()
        try:
            hot.follow()
            if telemetry.multiprocess:
                services.flush_counts()
        except Exception as error:  # a full disk, say: the heart beats on, and says so once
            if not failing:
                services.log.event(time.time(), "ERROR", "the heartbeat's work failed", error=error)
            failing = True
        else:
            failing = False
        began = clock()
        await asyncio.sleep(FLUSH_PERIOD_S)
        telemetry.facts.loop_lag_s = max(0.0, clock() - began - FLUSH_PERIOD_S)


async def _watch_tokens(services: Services) -> None:
    """Follow the token file, so that tokens rotate without a restart."""
    while True:
        await asyncio.sleep(_TOKENS_POLL_S)
        try:
            if services.gate.refresh():
                services.log.event(time.time(), "INFO", "the token file was read again")
        except InputError as error:
            services.log.event(
                time.time(), "ERROR", f"the token file is not fit; the old tokens stay: {error}"
            )
