"""From settings to running workers: check all that can be wrong first, so that a start either holds or says why."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn
from urllib.parse import quote

import numpy as np
from threadpoolctl import threadpool_limits

from service.api.auth import Gate
from service.api.compat.botify_station import check_station
from service.events.open import check_events
from service.recommender.live import LiveBundle
from service.serving.listeners import listen, reserve
from service.serving.reload import load_published, with_experiments
from service.serving.supervisor import Supervisor, settle
from service.serving.worker import READY, Seat, run_worker
from service.settings import Settings
from service.state.open import check_history

_FIRST_ROW = np.zeros(1, np.int32)


def serve(settings: Settings, *, supervised: bool = True) -> int:
    """Serve until a signal; returns the exit code.

    Raises InputError (no token, no place for events or histories, port in use, nothing published, experiments that are
    not fit) and BundleRefused, before anything is forked.
    """
    # The first process of a container has no default actions: without a handler it could not be stopped while loading.
    signal.signal(signal.SIGTERM, _leave)
    Gate(settings)
    check_events(settings)
    count = (settings.workers or available_cores()) if supervised else 1
    check_history(settings, count)
    listeners = reserve(settings.host, settings.port, count)
    admin = [] if settings.admin_port is None else reserve("127.0.0.1", settings.admin_port, count)
    _raise_descriptor_limit()
    with threadpool_limits(1):
        published = with_experiments(settings, load_published(settings))
        if "botify" in settings.profiles:
            check_station(settings, published.live)
        settle()
        for group in (listeners, admin):
            if group:
                listen(group)

        def announce() -> None:
            said = ready_line(settings, published.live, listeners[0], admin, count)
            print(said, file=sys.stderr, flush=True)  # noqa: T201 - the one line that a person waits for

        if supervised:
            return Supervisor(settings, published, listeners, admin, announce, _say).run()
        seat = Seat(tuple(listeners), tuple(admin), tell=lambda word: announce() if word == READY else None)
        return run_worker(settings, published, seat)


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ready_line(
    settings: Settings, live: LiveBundle, listener: socket.socket, admin: list[socket.socket], workers: int
) -> str:
    """Say where, what, and how to try it. An example user is one that the bundle knows."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - shown
    url = f"http://{shown}:{port}"
    user = quote(str(live.bundle.user_ids.take(_FIRST_ROW)[0]), safe="") if len(live.bundle.user_ids) else "1"
    models = ", ".join(sorted(name for name in live.models if name != "default"))
    token = "" if not settings.auth else " -H 'Authorization: Bearer TOKEN'"
    beside = f" (admin on http://127.0.0.1:{admin[0].getsockname()[1]})" if admin else ""
    return (
        f"reco: ready on {url}{beside}: bundle {live.bundle_id}, models {models}, "
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
