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
from service.serving.handover import ADMIN, MAIN, Intake, hand_over, leave_histories
from service.serving.listeners import BACKLOG
from service.serving.protocol import BoundedProtocol, ServingState, sweep
from service.serving.reload import Published, Reloader
from service.settings import Settings
from service.state.history import ByUser
from service.state.stored import StoredHistory

READY, WORN, LEFT = b"r", b"w", b"l"
"""What a worker tells its parent: it accepts connections; it has served RECO_MAX_REQUESTS; it made way for its
successor, which has what it could pass on."""
_TICK_S = 0.2
_DATE_TICKS = 5
_JITTER = 0.1
_HAND_OVER_S = 0.25
"""For requests under way to end, so that their connections can be passed on too."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker is given.

    `lifeline`: read end of a pipe whose other end dies with the parent. `turns`: the file to lock while reloading.
    `follows`: whether it takes up new bundles itself. `hand_in`: where connections come from its predecessor, and
    `hand_out`: where they go to its successor; None where there is neither.
    """

    listeners: tuple[socket.socket, ...]
    admin: tuple[socket.socket, ...]
    lifeline: int | None = None
    tell: Callable[[bytes], None] = lambda _: None
    turns: Path | None = None
    follows: bool = True
    hand_in: socket.socket | None = None
    hand_out: socket.socket | None = None


def run_worker(settings: Settings, published: Published, seat: Seat) -> int:
    """Serve until told to stop; returns the exit code.

    SIGTERM drains and ends; SIGUSR1 ends without a word of unreadiness (a successor shares the sockets, and gets the
    connections); SIGHUP looks for a new bundle. SIGINT is the parent's to hear, unless there is none.
    """
    declared = published.declared
    app = create_app(settings, live=published.live, experiments=declared.experiments, rules=declared.rules)
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
        self._told_to_end = False
        self._reloader: Reloader | None = None
        self._intake: Intake | None = None
        self._wear = wear_of(settings.max_requests)
        self._admin_state = ServingState()
        self._admin_config: uvicorn.Config | None = None
        self._admin_servers: list[asyncio.AbstractServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        # uvicorn closes the sockets it is given; draining needs them a little longer.
        self._listeners = [listener.dup() for listener in seat.listeners]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear the signals, and the parent's death."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(signal.SIGUSR1, self._retire)
        loop.add_signal_handler(signal.SIGHUP, self._check_now)
        lifeline = self._seat.lifeline
        if lifeline is None:
            loop.add_signal_handler(signal.SIGINT, self._end)
        else:
            loop.add_reader(lifeline, self._orphaned)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        yield
        if lifeline is not None:
            loop.remove_reader(lifeline)  # does nothing the second time

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
        seat = self._seat
        self._tasks = [asyncio.create_task(self._sweep())]
        if seat.follows:
            self._reloader = Reloader(services, self._published.stamp, seat.turns)
            self._tasks.append(asyncio.create_task(self._reloader.run()))
        if seat.admin:
            await self._open_admin()
        if seat.hand_in is not None:
            makers = {MAIN: self._make_protocol, ADMIN: self._make_admin}
            self._intake = Intake(seat.hand_in, makers, self._take_up)
            self._intake.open()
        seat.tell(READY)

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
        if self._retiring:
            await self._make_way()
            begin_closing(self.server_state)
        else:
            begin_closing(self.server_state)
            await asyncio.sleep(settings.drain_wait_s)
            await close_port(self.servers, self._listeners, self._make_protocol)
            if self._intake is not None:
                self._intake.take()
                await self._intake.settled()
        cut = await finish_connections(self.server_state, settings.drain_s)
        if self._retiring:
            await self._leave_histories()  # what came with the requests that were under way
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

    async def _make_way(self) -> None:
        """Leave the sockets to the successor, which listens on them, and send it the connections."""
        if self._intake is not None:
            self._intake.close()  # what is still on its way here is the successor's, too
            await self._intake.settled()
        for server in (*self.servers, *self._admin_servers):
            server.close()
        for listener in self._listeners:
            listener.close()
        await asyncio.sleep(0)  # those accepted last are made known
        await self._leave_histories()
        if self._seat.hand_out is not None:
            states = {MAIN: self.server_state, ADMIN: self._admin_state}
            await hand_over(states, self._seat.hand_out, _HAND_OVER_S, lambda: self._told_to_end)
        self._seat.tell(LEFT)

    async def _leave_histories(self) -> None:
        """Leave to the successor what the store of histories has not taken."""
        history, channel = self._services.history, self._seat.hand_out
        if not isinstance(history, StoredHistory) or channel is None or self._told_to_end:
            return
        unsent = await leave_histories(history.waiting(), channel, _HAND_OVER_S)
        if unsent:
            self._services.log.event(
                time.time(), "ERROR", "histories that were not saved are lost", users=unsent
            )

    def _take_up(self, histories: ByUser) -> None:
        history = self._services.history
        if isinstance(history, StoredHistory):
            history.take_up(histories)

    @property
    def _services(self) -> Services:
        services: Services = self.config.loaded_app.state.services
        return services

    def _make_protocol(self) -> BoundedProtocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state)

    def _make_admin(self) -> BoundedProtocol:
        assert self._admin_config is not None  # a connection of the admin port comes where there is one
        return BoundedProtocol(self._admin_config, self._admin_state, {})

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
        self._admin_config = config
        loop = asyncio.get_running_loop()
        for listener in self._seat.admin:
            self._admin_servers.append(
                await loop.create_server(self._make_admin, sock=listener, backlog=BACKLOG)
            )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1)
            for state in (self.server_state, self._admin_state):
                await sweep(list(state.connections))

    def _worn(self) -> None:
        if self._seat.lifeline is None:  # nobody would put a new one in its place
            return
        self._services.log.event(
            time.time(), "INFO", "worn: asking for a successor", requests=self.server_state.total_requests
        )
        self._seat.tell(WORN)

    def _retire(self) -> None:
        if not self._stop.is_set():
            self._retiring = True
            self._stop.set()

    def _end(self) -> None:
        self._told_to_end = True
        self._stop.set()

    def _orphaned(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._seat.lifeline is not None  # it is what told
        loop.remove_reader(self._seat.lifeline)
        self._end()

    def _check_now(self) -> None:
        if self._reloader is not None:
            self._reloader.check_now()


def wear_of(max_requests: int) -> int | None:
    """Requests after which this worker wears out: spread by a tenth, so that no two do at once."""
    if not max_requests:
        return None
    spread = round(max_requests * _JITTER)
    return max_requests + random.randint(-spread, spread)  # noqa: S311 - not a secret
