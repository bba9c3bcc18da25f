"""Follow the published bundle in the process that serves it: load the new beside the old, verify it, swap with one
assignment, drop the old.

So it is done where one process is all there is, and where a worker keeps what nobody else knows; else the supervisor
has the bundle loaded beside the workers and replaces them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.api.services import Services
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import BundleRefused, RecoError
from service.policy.experiments import check_experiments
from service.policy.experiments_file import ExperimentsFile, read_experiments
from service.policy.rules import check_rules
from service.policy.rules_file import RulesFile, read_rules
from service.recommender.live import LiveBundle, go_live
from service.settings import Settings

_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Stamp:
    """Tells one state of the pointer from another without reading it."""

    modified_ns: int
    inode: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Stat a file; None where there is none."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_mtime_ns, status.st_ino, status.st_size)


@dataclass(frozen=True, slots=True)
class Declared:
    """What RECO_EXPERIMENTS and RECO_RULES name. Every worker, whenever it is forked, divides users and ranks alike."""

    experiments: ExperimentsFile | None = None
    rules: RulesFile | None = None

    @classmethod
    def read(cls, settings: Settings) -> Declared:
        """Read the files. Raises InputError."""
        return cls(
            None if settings.experiments is None else read_experiments(settings.experiments),
            None if settings.rules is None else read_rules(settings.rules),
        )

    def check(self, settings: Settings, live: LiveBundle) -> None:
        """Raise InputError where they ask for what this bundle does not hold."""
        if self.rules is not None and settings.rules is not None:
            check_rules(self.rules, settings.rules, live)
        if self.experiments is not None and settings.experiments is not None:
            check_experiments(self.experiments, settings.experiments, live)


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle made live, and the pointer's stamp from before it was read: a change since then shows.

    `declared`: read once, at the start.
    """

    live: LiveBundle
    stamp: Stamp | None
    declared: Declared


def keeps_state(settings: Settings) -> bool:
    """Whether a worker knows what users did that nobody else knows: it is not replaced for a new bundle then."""
    return settings.history == "memory" or "botify" in settings.profiles


def load_published(settings: Settings) -> Published:
    """Load what the pointer says. Raises InputError when nothing is published, BundleRefused when it must not serve."""
    store = ArtifactStore(settings.artifacts)
    stamp = Stamp.of(store.pointer)
    live = go_live(load_bundle(store.current()), retriever=settings.retriever)
    declared = Declared.read(settings)
    declared.check(settings, live)
    return Published(live, stamp, declared)


class Reloader:
    """One worker's eye on the pointer. The event loop's thread owns it; only the loading runs beside."""

    def __init__(self, services: Services, stamp: Stamp | None, turns: Path | None = None) -> None:
        """`stamp`: of the pointer when the bundle that serves now was read. `turns`: a file that all workers share."""
        self._s, self._turns = services, turns
        self._store = ArtifactStore(services.settings.artifacts)
        self._seen = stamp
        self._forced = asyncio.Event()

    def check_now(self) -> None:
        """Read the pointer at once, and again even if it has not changed."""
        self._forced.set()

    async def run(self) -> None:
        """Look every `reload_poll_s` seconds until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._forced.wait(), self._s.settings.reload_poll_s)
            except TimeoutError:
                if Stamp.of(self._store.pointer) == self._seen:
                    continue
            self._forced.clear()
            await self._reload()

    async def _reload(self) -> None:
        """Try the published bundle once; a refused one is told of and left until the pointer changes again."""
        serving, telemetry = self._s.serving, self._s.telemetry
        stamp = Stamp.of(self._store.pointer)
        if stamp is None and self._seen is None:
            return
        self._seen = stamp
        started = time.perf_counter()
        old = serving.live
        old_id = None if old is None else old.bundle_id
        try:
            path = self._store.current()
            if path.name == old_id:
                telemetry.reloads.labels("unchanged").inc()
                return
            new = await _beside(lambda: _load_gently(path, self._s.settings, self._turns))
        except BundleRefused as error:
            telemetry.reloads.labels("refused").inc()
            self._log("ERROR", "the published bundle is refused; the old one serves on", old_id, error)
            return
        except (RecoError, OSError) as error:
            telemetry.reloads.labels("failed").inc()
            self._log("ERROR", "the published bundle cannot be read; the old one serves on", old_id, error)
            return
        except Exception as error:
            telemetry.reloads.labels("failed").inc()
            self._log("ERROR", "loading the published bundle broke; the old one serves on", old_id, error)
            return
        serving.live = new
        telemetry.reloads.labels("ok").inc()
        self._s.log.event(
            time.time(), "INFO", "a new bundle is live", bundle=new.bundle_id, before=old_id,
            seconds=round(time.perf_counter() - started, 3),
        )  # fmt: skip
        del old
        gc.collect()

    def _log(self, level: str, message: str, old_id: str | None, error: Exception) -> None:
        unexpected = not isinstance(error, RecoError | OSError)
        self._s.log.event(
            time.time(), level, message, reason=str(error) or repr(error), serving=old_id,
            error=error if unexpected else None,
        )  # fmt: skip


def _load_gently(path: Path, settings: Settings, turns: Path | None = None) -> LiveBundle:
    """Load in this thread while another answers: the interpreter's lock is handed back ten times as often.

    `turns`: a file that the workers lock, so that one at a time loads; the others keep the processors busy with answers
    and the memory for two bundles is needed once. The system unlocks it for a worker that dies.
    """
    with contextlib.ExitStack() as stack:
        if turns is not None:
            fcntl.flock(stack.enter_context(turns.open("ab")), fcntl.LOCK_EX)
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        try:
            return go_live(load_bundle(path), retriever=settings.retriever)
        finally:
            sys.setswitchinterval(before)


async def _beside(work: Callable[[], LiveBundle]) -> LiveBundle:
    """Run in a thread that the process's end does not wait for, as it would for one of the loop's own pool."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[LiveBundle] = loop.create_future()

    def settle(result: LiveBundle | None, error: Exception | None) -> None:
        if done.done():  # cancelled: the worker is ending
            return
        if result is None:
            done.set_exception(error or RuntimeError("nothing was loaded"))
        else:
            done.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="reload", daemon=True).start()
    return await done
