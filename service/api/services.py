"""What the lifespan builds and every route reads: one object at `app.state.services`."""

from __future__ import annotations

import itertools
import re
import secrets
from dataclasses import dataclass, field

from service.access_log import AccessLog
from service.api.auth import Gate
from service.api.response_cache import ResponseCache
from service.domain import Clock
from service.events.log import EventLog
from service.policy.experiments import Experiments
from service.policy.rules import Rules
from service.policy.shadow import Shadows
from service.recommender.live import LiveBundle
from service.settings import Settings
from service.state.history import UserHistory
from service.telemetry import Telemetry

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Serving:
    """What is served now. A reload is one assignment to `live`; a request reads it once and keeps what it read."""

    __slots__ = ("draining", "heartbeat_at", "live")

    def __init__(self) -> None:
        self.live: LiveBundle | None = None
        self.draining = False
        """Shutting down: not ready any more, still answering."""
        self.heartbeat_at = 0.0
        """When the event loop last came round, seconds on the service's clock."""

    @property
    def unready_because(self) -> str | None:
        """Why no new traffic should come; None when it should."""
        if self.draining:
            return "draining"
        return "no bundle is live yet" if self.live is None else None


class RequestIds:
    """Ids of requests: the client's own where it is tame, else a random prefix of this process and a count."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6).encode()
        self._count = itertools.count(1)

    def of(self, offered: bytes | None) -> bytes:
        """Choose a request's id."""
        if offered is not None and _REQUEST_ID.fullmatch(offered):
            return offered
        return b"%b-%x" % (self._prefix, next(self._count))


@dataclass(frozen=True, slots=True)
class Services:
    """One process's working parts."""

    settings: Settings
    gate: Gate
    telemetry: Telemetry
    log: AccessLog
    clock: Clock
    serving: Serving = field(default_factory=Serving)
    request_ids: RequestIds = field(default_factory=RequestIds)
    events: EventLog | None = None
    """None: RECO_EVENTS_DIR is not set, and nothing is logged."""
    history: UserHistory | None = None
    """None: RECO_HISTORY=off, and users are known as the bundle has them."""
    experiments: Experiments | None = None
    """None: RECO_EXPERIMENTS is not set, or declares none."""
    shadows: Shadows | None = None
    rules: Rules | None = None
    """None: RECO_RULES is not set, or declares none."""
    cache: ResponseCache | None = None
    """None: RECO_RESPONSE_CACHE=0, and every answer is computed."""

    def flush_counts(self) -> None:
        """Carry what was counted since the last time to where a scrape finds it."""
        self.telemetry.log_dropped.inc(self.log.take_dropped())
        self.telemetry.flush()
        if self.events is not None:
            self.events.flush_counts()
        if self.history is not None:
            self.history.flush_counts()
        if self.experiments is not None:
            self.experiments.flush_counts()
        if self.shadows is not None:
            self.shadows.flush_counts()
        if self.cache is not None:
            self.cache.flush_counts()
