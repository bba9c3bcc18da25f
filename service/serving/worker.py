"""One worker: an event loop that serves the app on sockets it was given, follows the published bundle, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from service.api.reco import RecoRoute
from service.api.services import Services
from service.app import create_admin_app, create_app
from service.serving import protocol
from service.serving.drain import begin_closing, close_port, finish_connections
from service.serving.listeners import BACKLOG
from service.serving.protocol import BoundedProtocol, ServingState, sweep
from service.serving.reload import Published, Reloader
from service.settings import Settings

READY, WORN = b"r", b"w"
"""What a worker tells its parent: it accepts connections; it has served RECO_MAX_REQUESTS."""
_TICK_S = 0.2
_DATE_TICKS = 5
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker is given.

    `lifeline`: read end of a pipe whose other end dies with the parent. `turns`: the file to lock while reloading.
    """

    listeners: tuple[socket.socket, ...]
    admin: tuple[socket.socket, ...]
    lifeline: int | None = None
    tell: Callable[[bytes], None] = lambda _: None
    turns: Path | None = None


def run_worker(settings: Settings, published: Published, seat: Seat) -> int:
    """Serve until told to stop; returns the exit code.

    SIGTERM drains and ends; SIGUSR1 ends without a word of unreadiness (a successor shares the sockets); SIGHUP looks
    for a new bundle. SIGINT is the parent's to hear, unless there is none.
    """
    app = create_app(settings, live=published.live, experiments=published.experiments)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=protocol.KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    server = WorkerServer(config, settings, published, seat)
    if seat.lifeline is not None:
        # Before the loop: asyncio would otherwise take SIGINT for itself.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=list(seat.listeners)))
    return 0


class WorkerServer(uvicorn.Server):
    """uvicorn's server with our signals, our drain, and a second listener for the admin app."""

    server_state: ServingState

    def __init__(self, config: uvicorn.Config, settings: Settings, published: Published, seat: Seat) -> None:
        super().__init__(config)
        self.server_state = ServingState()
        self._settings, self._published, self._seat = settings, published, seat
        self._stop = asyncio.Event()
        self._retiring = False
        self._wear = wear_of(settings.max_requests)
        self._admin_state = ServingState()
        self._admin_servers: list[asyncio.AbstractServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        # uvicorn closes the sockets it is given; draining needs them a little longer.
        self._listeners = [listener.dup() for listener in seat.listeners]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear the signals, and the parent's death."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._retire)
        loop.add_signal_handler(signal.SIGHUP, self._check_now)
        lifeline = self._seat.lifeline
        if lifeline is None:
            loop.add_signal_handler(signal.SIGINT, self._stop.set)
        else:
            loop.add_reader(lifeline, self._stop.set)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        yield
        if lifeline is not None:
            loop.remove_reader(lifeline)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets)
        hot = self.config.loaded_app.hot
        if isinstance(hot, RecoRoute):
            hot.warm()
        admission = self.config.loaded_app.admission
        if admission is not None:
            admission.tasks = self.server_state.tasks
        self.server_state.admission = admission
        services = self._services
        self._reloader = Reloader(services, self._published.stamp, self._seat.turns)
        self._tasks = [
            asyncio.create_task(self._reloader.run()),
            asyncio.create_task(self._sweep()),
        ]
        if self._seat.admin:
            await self._open_admin()
        self._seat.tell(READY)

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        ticks = 0
        while not self._stop.is_set():
            if ticks % _DATE_TICKS == 0:
                await super().on_tick(0)
            ticks += 1
            if self._wear is not None and self.server_state.total_requests >= self._wear:
                self._wear = None
                self._worn()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then let the app end."""
        settings, services = self._settings, self._services
        services.serving.draining = not self._retiring
        begin_closing(self.server_state)
        if self._retiring:
            for server in self.servers:
                server.close()
            for listener in self._listeners:
                listener.close()
        else:
            await asyncio.sleep(settings.drain_wait_s)
            await close_port(self.servers, self._listeners, self._make_protocol)
        cut = await finish_connections(self.server_state, settings.drain_s)
        if cut:
            services.log.event(
                time.time(), "ERROR", "requests were cut: RECO_DRAIN_S has passed", requests=cut
            )
        for admin in self._admin_servers:
            admin.close()
        begin_closing(self._admin_state)
        await finish_connections(self._admin_state, _TICK_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().shutdown(sockets)

    @property
    def _services(self) -> Services:
        services: Services = self.config.loaded_app.state.services
        return services

    def _make_protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state)

    async def _open_admin(self) -> None:
        config = uvicorn.Config(
            create_admin_app(self.config.loaded_app),
            http=BoundedProtocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=protocol.KEEP_ALIVE_S,
        )
        config.load()
        loop = asyncio.get_running_loop()
        for listener in self._seat.admin:
            self._admin_servers.append(
                await loop.create_server(
                    lambda: BoundedProtocol(config, self._admin_state, {}), sock=listener, backlog=BACKLOG
                )
            )

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1)
            sweep(self.server_state, loop)
            sweep(self._admin_state, loop)

    def _worn(self) -> None:
        if self._seat.lifeline is None:  # nobody would put a new one in its place
            return
        self._services.log.event(
            time.time(), "INFO", "worn: asking for a successor", requests=self.server_state.total_requests
        )
        self._seat.tell(WORN)

    def _retire(self) -> None:
        self._retiring = True
        self._stop.set()

    def _check_now(self) -> None:
        self._reloader.check_now()


def wear_of(max_requests: int) -> int | None:
    """Requests after which this worker wears out: spread by a tenth, so that no two do at once."""
    if not max_requests:
        return None
    spread = round(max_requests * _JITTER)
    return max_requests + random.randint(-spread, spread)  # noqa: S311 - not a secret
