"""From settings to running workers: check all that can be wrong first, so that a start either holds or says why."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn
from urllib.parse import quote

from threadpoolctl import threadpool_limits

from service.api.auth import Gate
from service.api.compat.botify_station import check_station
from service.bundle.store import ArtifactStore
from service.errors import BundleRefused
from service.events.open import check_events
from service.serving.listeners import listen, reserve
from service.serving.loader import Job, Loaded, Loader, LoaderLost, adopt_orphans, settle
from service.serving.reload import Declared, Stamp, load_published
from service.serving.supervisor import Supervisor
from service.serving.worker import READY, Seat, run_worker
from service.settings import Settings
from service.state.open import check_history


def serve(settings: Settings, *, supervised: bool = True) -> int:
    """Serve until a signal; returns the exit code.

    Raises InputError (no token, no place for events or histories, port in use, nothing published, experiments that are
    not fit) and BundleRefused, before anything serves. Several processes need Linux; elsewhere there is one.
    """
    # The first process of a container has no default actions: without a handler it could not be stopped while loading.
    signal.signal(signal.SIGTERM, _leave)
    supervised = supervised and sys.platform == "linux"
    Gate(settings)
    check_events(settings)
    count = (settings.workers or available_cores()) if supervised else 1
    check_history(settings, count)
    listeners = reserve(settings.host, settings.port, count)
    admin = [] if settings.admin_port is None else reserve("127.0.0.1", settings.admin_port, count)
    _raise_descriptor_limit()
    with threadpool_limits(1):
        if not supervised:
            published = load_published(settings)
            if "botify" in settings.profiles:
                check_station(settings, published.live)
            settle()
            _listen(listeners, admin)
            announce = _announcer(settings, Loaded.of(published.live), listeners, admin)
            seat = Seat(
                tuple(listeners), tuple(admin), tell=lambda word: announce() if word == READY else None
            )
            return run_worker(settings, published, seat)
        adopt_orphans()
        settle()
        loader = _first_loader(settings, listeners, admin)
        try:
            announce = _announcer(settings, _wait_for(loader), listeners, admin)
            _listen(listeners, admin)
            return Supervisor(settings, loader, listeners, admin, announce, _say).run()
        finally:
            loader.kill()


def _first_loader(settings: Settings, *groups: list[socket.socket]) -> Loader:
    """Begin to load what is published. Raises InputError."""
    store = ArtifactStore(settings.artifacts)
    stamp = Stamp.of(store.pointer)
    job = Job(settings, store.current(), stamp, Declared.read(settings), first=True)

    def let_go() -> None:
        for one in (listener for group in groups for listener in group):
            one.close()

    return Loader.start(job, 0, let_go, _say)


def _wait_for(loader: Loader) -> Loaded:
    """Wait for the first bundle. Raises InputError or BundleRefused."""
    try:
        return loader.hear()
    except LoaderLost as lost:
        loader.close()
        _, status = os.waitpid(loader.pid, 0)
        loader.ended = True
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        reason = str(lost) or f"its loader ended by {how}"
        raise BundleRefused(loader.job.path.name, f"loading it went wrong: {reason}") from None


def _listen(*groups: list[socket.socket]) -> None:
    for group in groups:
        if group:
            listen(group)


def _announcer(
    settings: Settings, loaded: Loaded, listeners: list[socket.socket], admin: list[socket.socket]
) -> Callable[[], None]:
    def announce() -> None:
        said = ready_line(settings, loaded, listeners[0], admin, len(listeners))
        print(said, file=sys.stderr, flush=True)  # noqa: T201 - the one line that a person waits for

    return announce


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ready_line(
    settings: Settings, loaded: Loaded, listener: socket.socket, admin: list[socket.socket], workers: int
) -> str:
    """Say where, what, and how to try it. An example user is one that the bundle knows."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - shown
    url = f"http://{shown}:{port}"
    user, models = quote(loaded.example_user, safe=""), ", ".join(loaded.models)
    token = "" if not settings.auth else " -H 'Authorization: Bearer TOKEN'"
    beside = f" (admin on http://127.0.0.1:{admin[0].getsockname()[1]})" if admin else ""
    return (
        f"reco: ready on {url}{beside}: bundle {loaded.bundle_id}, models {models}, "
        f"{workers} worker{'s' if workers > 1 else ''}; try: curl{token} {url}/reco/default/{user}"
    )


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _say(message: str) -> None:
    print(f"reco: {message}", file=sys.stderr, flush=True)  # noqa: T201 - the parent has no log of its own


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
