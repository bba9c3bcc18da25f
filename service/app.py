"""`create_app(settings)`: the FastAPI app with the hot route inside. Only its lifespan builds objects."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access_log import AccessLog
from service.api.admission import Admission
from service.api.auth import Gate
from service.api.compat.botify_station import Station
from service.api.error_handlers import ErrorFamilies, register_error_handlers
from service.api.head import Head
from service.api.health import health, metrics
from service.api.middleware import Observed
from service.api.reco import PREFIX, RecoRoute, answer_not_ready
from service.api.response_cache import ResponseCache
from service.api.routes import add_routes
from service.api.services import Services
from service.bundle.reader import Bundle, load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Clock
from service.errors import InputError
from service.events.open import open_events
from service.events.replay import lately_done
from service.policy.experiments import Experiments, check_experiments
from service.policy.experiments_file import ExperimentsFile, read_experiments
from service.policy.rules import Rules, check_rules
from service.policy.rules_file import RulesFile, read_rules
from service.policy.shadow import Shadows
from service.recommender.live import LiveBundle, go_live
from service.settings import Settings
from service.state.history import UserHistory
from service.state.open import open_history
from service.telemetry import FLUSH_PERIOD_S, Telemetry

_TOKENS_POLL_S = 1.0
_STDOUT = 1


class RecoApp(FastAPI):
    """FastAPI with one door before it: `/reco/` goes straight to its endpoint, all else through the framework."""

    hot: ASGIApp | None = None
    """The endpoint of /reco/; None while the lifespan has not begun or has ended."""
    observed: ASGIApp | None = None
    """The framework with what every other route gets around it."""
    admission: Admission | None = None
    """The door before both; None outside the lifespan, and where the settings switch it off."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch a connection."""
        if scope["type"] == "http":
            if self.admission is not None and not await self.admission.passed(scope, receive, send):
                return
            if scope["path"].startswith(PREFIX):
                await (self.hot or answer_not_ready)(scope, receive, send)
                return
            if self.observed is not None:
                await self.observed(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def answer_now(
        self,
        url: bytes,
        head: Head,
        scheme: str,
        write: Callable[[int, bytes], None],
        age: float = 0.0,
    ) -> bool:
        """Answer a GET of the hot route without ASGI (`RecoRoute.answer_now`); False where that can't be."""
        hot = self.hot
        return isinstance(hot, RecoRoute) and hot.answer_now(url, head, scheme, write, age)


def create_app(
    settings: Settings,
    *,
    load: Callable[[Path], Bundle] = load_bundle,
    live: LiveBundle | None = None,
    experiments: ExperimentsFile | None = None,
    rules: RulesFile | None = None,
    clock: Clock = time.perf_counter,
    wall_clock: Clock = time.time,
) -> RecoApp:
    """Make the app; nothing is read or built before its lifespan begins.

    `live`: a bundle made live already (before a fork, so that workers share its memory). Without it the lifespan reads
    the published one; so it is with `experiments` and `rules`, which are then checked to fit it. `wall_clock`: Unix
    time in seconds, by which experiments start and end. A bundle that is refused, or settings without a token, end the
    start-up with BundleRefused or InputError.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = _build(settings, clock)
        serves = live if live is not None else _read_published(settings, load, clock)
        services = _with_experiments(services, experiments, serves, wall_clock)
        services = _with_rules(services, rules, serves, wall_clock)
        services.serving.live = serves
        services.serving.heartbeat_at = clock()
        services.log.start()
        if services.events is not None:
            services.events.start()
        if services.history is not None:
            await services.history.start()
            if settings.history == "memory" and settings.events_dir is not None:
                await _remember(settings.events_dir, services.history, services)
        station = Station(services) if "botify" in settings.profiles else None
        if station is not None:
            await station.start()
        assert isinstance(app, RecoApp)
        framework = super(RecoApp, app).__call__
        app.state.services, app.state.station = services, station
        hot = RecoRoute(services)
        app.hot, app.observed = hot, Observed(framework, services)
        if settings.admission:
            app.admission = Admission(settings, services.telemetry, app.state.families, services.request_ids)
        tasks = [asyncio.create_task(_heartbeat(services, hot)), asyncio.create_task(_watch_tokens(services))]
        try:
            yield
        finally:
            services.serving.draining = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if station is not None:
                await station.stop()
            await _close(services)
            app.hot = app.observed = app.admission = None
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
    events = open_events(settings, telemetry, say)
    cache = ResponseCache(settings.response_cache, telemetry) if settings.response_cache else None
    return Services(settings, gate, telemetry, log, clock, events=events, history=history, cache=cache)


async def _close(services: Services) -> None:
    """End what the lifespan began, and count the last of it."""
    if services.shadows is not None:
        services.shadows.close()
    if services.events is not None:
        await services.events.close()
    if services.history is not None:
        await services.history.close()
    services.flush_counts()


def _with_experiments(
    services: Services, given: ExperimentsFile | None, live: LiveBundle, wall_clock: Clock
) -> Services:
    """Add what RECO_EXPERIMENTS declares; nothing where nothing is. Raises InputError."""
    path = services.settings.experiments
    if given is None and path is not None:
        given = read_experiments(path)
        check_experiments(given, path, live)
    if given is None:
        return services

    def say(level: str, message: str, **fields: Any) -> None:
        services.log.event(time.time(), level, message, **fields)

    telemetry = services.telemetry
    return dataclasses.replace(
        services,
        experiments=Experiments(given, telemetry, clock=wall_clock, say=say) if given.experiments else None,
        shadows=Shadows(given, telemetry, clock=services.clock, say=say) if given.shadows else None,
    )


def _with_rules(services: Services, given: RulesFile | None, live: LiveBundle, wall_clock: Clock) -> Services:
    """Add what RECO_RULES declares; nothing where nothing is. Raises InputError."""
    path = services.settings.rules
    if given is None and path is not None:
        given = read_rules(path)
        check_rules(given, path, live)
    if given is None:
        return services

    def say(level: str, message: str, **fields: Any) -> None:
        services.log.event(time.time(), level, message, **fields)

    rules = Rules(given, clock=wall_clock, say=say) if given.rules else None
    return dataclasses.replace(services, rules=rules)


def _read_published(settings: Settings, load: Callable[[Path], Bundle], clock: Clock) -> LiveBundle:
    return go_live(
        load(ArtifactStore(settings.artifacts).current()), retriever=settings.retriever, clock=clock
    )


async def _remember(events: Path, history: UserHistory, services: Services) -> None:
    """Give a history that a process before this one kept in memory back from the event log, as far as it goes."""
    since_ms = int((time.time() - services.settings.history_ttl_s) * 1000)
    try:
        done = list(lately_done(events, since_ms=since_ms))
    except (InputError, OSError) as error:
        services.log.event(
            time.time(), "ERROR", "histories could not be taken from the event log", error=error
        )
        return
    await history.append(done)
    if done:
        services.log.event(time.time(), "INFO", "histories were taken from the event log", events=len(done))


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
