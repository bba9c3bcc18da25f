"""What the botify profile keeps while it runs: listens, experiments, the data log, and recommenders over the bundle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import Counter

from service.api.answering import live_of, slate_for
from service.api.services import Services
from service.domain import Deadline, Plan, Query, Slate
from service.errors import InputError
from service.events.listen_log import Datum, ListenLog, Say
from service.policy.botify_experiments import BotifyExperiments, read_experiments
from service.recommender.botify.picks import Listed
from service.recommender.botify.tracks import Tracks, read_tracks
from service.recommender.botify.treatments import (
    Line,
    Recommender,
    Treatment,
    Turn,
    at_random,
    bind,
    item_lists,
)
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend
from service.settings import Settings
from service.state.listens import Heard, Listen, Listens, MemoryListens

LISTS = "contextual"
"""The model whose lists a track's `recommendations` are, where the bundle holds one."""

Outcome = Literal["chosen", "random", "error"]
"""The recommender chose; it had nothing to say; it broke."""
_OUTCOMES: tuple[Outcome, ...] = ("chosen", "random", "error")


@dataclass(frozen=True, slots=True)
class _Bound:
    """One bundle's tracks, and what each treatment is over it: (name, recommender)."""

    live: LiveBundle
    tracks: Tracks
    recommenders: tuple[tuple[str, Recommender], ...]
    listed: Listed


@dataclass(frozen=True, slots=True)
class Played:
    """The track to play, the bundle it is from, and whether all that the user heard was known."""

    track: int
    bundle_id: str
    degraded: bool


class Station:
    """One process's. `start` and `stop` are the lifespan's; the rest is a request's."""

    def __init__(self, services: Services) -> None:
        """Raises InputError where settings, experiments or the live bundle don't fit."""
        settings, log = services.settings, services.log
        self._s = services
        seed = settings.botify_seed
        self._rng = random.Random(None if seed is None else f"{seed}/{settings.worker_slot or 0}")  # noqa: S311
        self._experiments = read_experiments(settings.botify_experiments, settings.botify_run)

        def say(level: str, message: str, **fields: Any) -> None:
            log.event(time.time(), level, message, **fields)

        self._listens = _open_listens(settings, say)
        if settings.redis_url is None and settings.workers != 1:
            say("WARNING", "without RECO_REDIS_URL each worker knows only the listens it was told itself")
        self._bound = self._make(live_of(services))
        self._refused: LiveBundle | None = None
        self._log = ListenLog(settings.botify_log, say=say)
        registry = services.telemetry.registry
        counts = Counter(
            "reco_botify_tracks", "Tracks played, by recommender and by whether it chose them.",
            ["recommender", "outcome"], registry=registry,
        )  # fmt: skip
        self._counts = {
            (name, outcome): counts.labels(name, outcome)
            for name in {name for name, _ in self._bound.recommenders}
            for outcome in _OUTCOMES
        }
        self._degraded = Counter(
            "reco_botify_listens_unread", "Listens answered without what Redis knows.", registry=registry
        )
        self._lost = Counter(
            "reco_botify_log_dropped", "Lines of the data log that were lost.", registry=registry
        )

    async def start(self) -> None:
        """Begin."""
        self._log.start()
        await self._listens.start()

    async def stop(self) -> None:
        """End; what was logged is on disk then, as far as the disk takes it."""
        await self._listens.close()
        self._log.stop()
        self._lost.inc(self._log.take_dropped())

    def tracks(self) -> Tracks:
        """The catalogue of the bundle that is live."""
        return self._bind().tracks

    def list_of(self, track: int) -> list[int]:
        """Tracks that go with a track, best first; none where the bundle holds no model `LISTS`."""
        return list(self._bind().listed(track))

    async def next(self, user_id: int, listen: Listen, deadline: Deadline) -> Played:
        """Remember a listen, choose the next track, and log both."""
        heard = await self._hear(user_id, listen, deadline)
        bound = self._bind()
        assigned = self._experiments.assign(user_id)
        name, recommender = bound.recommenders[self._experiments.played(assigned)]
        track, outcome = None, "chosen"
        try:
            track = recommender(Turn(user_id, listen, heard.listens, deadline))
        except Exception as error:
            outcome = "error"
            self._s.log.event(time.time(), "ERROR", f"recommender {name} broke", error=error)
        if track is None:
            outcome = "random" if outcome == "chosen" else outcome
            track = at_random(bound.tracks, self._rng)
        self._counts[name, outcome].inc()  # type: ignore[index]  # an Outcome
        self._write("next", user_id, listen, deadline, track, assigned)
        return Played(track, bound.live.bundle_id, heard.degraded)

    async def last(self, user_id: int, listen: Listen, deadline: Deadline) -> bool:
        """Remember a session's last listen, and log it. Returns whether all that the user heard was known."""
        heard = await self._hear(user_id, listen, deadline)
        self._write("last", user_id, listen, deadline, None, self._experiments.assign(user_id))
        return heard.degraded

    async def _hear(self, user_id: int, listen: Listen, deadline: Deadline) -> Heard:
        heard = await self._listens.heard(user_id, listen, deadline)
        if heard.degraded:
            self._degraded.inc()
        return heard

    def _write(
        self, message: Literal["next", "last"], user_id: int, listen: Listen, deadline: Deadline,
        track: int | None, assigned: Mapping[str, str],
    ) -> None:  # fmt: skip
        seconds = deadline.now() - deadline.started_at
        at_ms = int(time.time() * 1000)
        self._log.log(Datum(message, at_ms, user_id, listen.track, listen.time, seconds, track, assigned))
        if self._log.dropped:
            self._lost.inc(self._log.take_dropped())

    def _bind(self) -> _Bound:
        """Follow what is live. A bundle that botify can't use is passed over: the one before it plays on."""
        live = live_of(self._s)
        if live is not self._bound.live and live is not self._refused:
            try:
                self._bound = self._make(live)
                self._refused = None
            except InputError as error:
                self._refused = live
                self._s.log.event(time.time(), "ERROR", f"the bundle before it plays on: {error}")
        return self._bound

    def _make(self, live: LiveBundle) -> _Bound:
        """Bind every treatment; one that the bundle has nothing for plays at random, and says so once."""

        def play_at_random(name: str, error: InputError) -> Recommender:
            self._s.log.event(time.time(), "ERROR", f"{name} plays at random: {error}")
            return lambda _: None

        return _bound(live, self._experiments, self._rng, self._line, play_at_random)

    def _line(self, query: Query, plan: Plan, live: LiveBundle, deadline: Deadline) -> Slate:
        return slate_for(query, plan, live, self._s, deadline)


def check_station(settings: Settings, live: LiveBundle) -> None:
    """Check, before a process is forked, all that would keep one from playing. Raises InputError."""
    experiments = read_experiments(settings.botify_experiments, settings.botify_run)

    def refuse(_: str, error: InputError) -> Recommender:
        assert experiments.serving is not None
        raise InputError(f"botify experiment {experiments.serving.name}: {error}")

    _bound(live, experiments, random.Random(0), recommend, refuse)  # noqa: S311 - not a secret
    _open_listens(settings, lambda *_, **__: None)
    ListenLog(settings.botify_log)


def _bound(
    live: LiveBundle,
    experiments: BotifyExperiments,
    rng: random.Random,
    line: Line,
    in_its_stead: Callable[[str, InputError], Recommender],
) -> _Bound:
    tracks = read_tracks(live.bundle)
    made: list[tuple[str, Recommender]] = []
    for treatment in experiments.serving.treatments if experiments.serving is not None else ():
        name = name_of(treatment)
        try:
            made.append((name, bind(treatment, live, tracks, rng, line)))
        except InputError as error:
            made.append((name, in_its_stead(name, error)))
    return _Bound(live, tracks, tuple(made) or (("random", lambda _: None),), _lists(live))


def _lists(live: LiveBundle) -> Listed:
    try:
        return item_lists(LISTS, None, live)
    except InputError:
        return lambda _: ()


def name_of(treatment: Treatment) -> str:
    """What metrics call a treatment: its recommender, and what tells it from others of that kind."""
    k = f":{treatment.k}" if treatment.recommender == "top_pop" else ""
    model = getattr(treatment, "model", None)
    return f"{treatment.recommender}{k}" if model is None else f"{treatment.recommender}:{model}"


def _open_listens(settings: Settings, say: Say) -> Listens:
    if settings.redis_url is None:
        return MemoryListens()
    try:
        from service.state.redis_listens import RedisListens  # noqa: PLC0415 - an extra, only where it is asked for
    except ImportError:
        raise InputError("RECO_REDIS_URL needs the extra: pip install 'reco-service[redis]'") from None
    return RedisListens(
        settings.redis_url.get_secret_value(),
        timeout_s=settings.redis_timeout_ms / 1000,
        say=say,
    )
