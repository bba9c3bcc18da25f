"""The parent of the workers: has a loader load the bundle and fork them, replaces who dies, and passes signals on.

It never runs an event loop or a thread, never opens a bundle, and waits for nothing but a fork. It keeps every
listening socket open: connections that wait for a dead worker are served by its successor.

A new bundle is loaded by a loader of its own while the workers serve. Once it is proved, the workers are succeeded one
after the other: a successor is forked and warmed up on the same socket, then its predecessor sends it its connections,
finishes what is under way, and ends. The old loader is kept until the first successor is ready.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.access_log import AccessLog
from service.bundle.store import ArtifactStore
from service.errors import BundleRefused, RecoError
from service.serving.listeners import Address, bind_again
from service.serving.loader import Job, Loader, LoaderLost, Place, Say
from service.serving.reload import Stamp, keeps_state
from service.serving.worker import LEFT, READY, WORN
from service.settings import Settings
from service.telemetry import MULTIPROCESS_DIR, PARENTS_SLOT, Telemetry

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STILLBIRTHS = 5
_STILLBIRTH_WINDOW_S = 10.0
_BACK_OFF_S = 1.0
_MOST_STILLBORN = 3
"""Of a new bundle's workers, before it is given up."""
_PATIENCE_S = 20.0
"""How long a new bundle is loaded with what processor time is left over."""
_BIRTH_S = 60.0
"""Given to a successor to become ready."""
_KILL_AFTER_S = 3.0
"""Given to a worker over its own limits before it is killed."""
_STDOUT = 1


@dataclass(slots=True)
class _Worker:
    pid: int
    slot: int
    identity: int
    """Names its metric files: never that of another living worker."""
    ear: int
    generation: int
    """Number of its loader."""
    ready: bool = False
    worn: bool = False
    retiring: bool = False
    left: bool = False
    """It has passed on what it could, and takes no new connection."""
    successor_of: int | None = None
    ends_by: float = math.inf
    """When it is killed: a successor that is not ready, a predecessor that was told to make way. Seconds on the
    monotonic clock, as all times here."""


@dataclass(frozen=True, slots=True)
class _Swap:
    """A reload under way. `before`: the bundle that served."""

    before: str
    began: float


@dataclass(slots=True)
class Supervisor:
    """Runs workers until told to stop. `listeners`, `admin`: a socket for each slot (`admin` may be empty).

    `loader`: one that has loaded.
    """

    settings: Settings
    loader: Loader
    listeners: list[socket.socket]
    admin: list[socket.socket]
    on_ready: Callable[[], None]
    say: Say
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _loaders: dict[int, Loader] = field(default_factory=dict)
    """All that have not ended, by pid: the one that serves, one that comes, and those that are ending."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _coming: Loader | None = None
    _swap: _Swap | None = None
    _succeed_at: float = 0.0
    _revive_at: float = 0.0
    _seen: Stamp | None = None
    _look_at: float = 0.0
    _look_now: bool = False
    _channels: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    """Of each slot: where a worker receives connections, and where its predecessor sends them."""
    _stillbirths: list[float] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _stop_at: float | None = None
    _exit_code: int = 0
    _announced: bool = False
    _due: dict[int, float] = field(default_factory=dict)
    """Slot -> when to fork for it."""
    _addresses: list[tuple[int, Address]] = field(default_factory=list)
    _shared: Path = field(default_factory=Path)
    _lifeline: int = -1
    _keep: int = -1
    _wakeup: int = -1
    _log: AccessLog = field(init=False)
    _telemetry: Telemetry = field(init=False)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. A second SIGINT ends at once."""
        with (
            _shared_folder() as self._shared,
            _pipe() as (self._lifeline, self._keep),
            _heard(self._signals.append) as self._wakeup,
        ):
            settings = self.settings
            self._log = AccessLog(
                descriptor=_STDOUT, level=settings.log_level, requests=False, show_user_ids=False
            )
            self._telemetry = Telemetry(budget_s=settings.budget_s, worker_slot=PARENTS_SLOT)
            self._loaders[self.loader.pid] = self.loader
            self._seen = self.loader.job.stamp
            self._addresses = [
                (group[0].family, group[0].getsockname()) for group in (self.listeners, self.admin) if group
            ]
            self._channels = [_channel() for _ in self.listeners]
            try:
                self._due = dict.fromkeys(range(len(self.listeners)), 0.0)
                self._fill()
                while self._workers or self._due:
                    self._wait()
                    self._answer_signals()
                    self._reap()
                    if self._stop_at is None:
                        self._look()
                        self._succeed()
                        self._fill()
                    self._enforce_limits()
            finally:
                self._signal_all(signal.SIGKILL)
                for loader in self._loaders.values():
                    loader.kill()
                self._reap(block=True)
                for pair in self._channels:
                    for one in pair:
                        one.close()
        return self._exit_code

    # -- one turn -------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until a worker or a loader speaks, a signal comes, or a limit may have passed."""
        ears = {worker.ear: worker for worker in self._workers.values()}
        coming = self._coming
        limits = [*self._due.values(), *([] if self._stop_at is None else [self._stop_at])]
        if self._follows and self._stop_at is None and coming is None and self._swap is None:
            limits.append(self._look_at)
        timeout = max(0.0, min(limits, default=math.inf) - time.monotonic())
        # poll, not select: descriptors may be above 1023.
        poll = select.poll()
        for descriptor in (self._wakeup, *ears):
            poll.register(descriptor, select.POLLIN)
        if coming is not None and coming.loaded is None:
            poll.register(coming.link, select.POLLIN)
        for descriptor, _ in poll.poll(min(timeout, 1.0) * 1000):
            if descriptor == self._wakeup:
                _empty(descriptor)
            elif descriptor in ears:
                self._hear(ears[descriptor])
            elif coming is not None:
                self._hear_outcome(coming)

    def _hear(self, worker: _Worker) -> None:
        with contextlib.suppress(BlockingIOError):
            words = os.read(worker.ear, 64)
            if READY in words:
                self._ready(worker)
            if LEFT in words:
                worker.left = True
            if WORN in words:
                worker.worn = True

    def _ready(self, worker: _Worker) -> None:
        worker.ready, worker.ends_by = True, math.inf
        coming = self._coming
        if coming is not None and worker.generation == coming.number:
            self._promote(coming)
        predecessor = self._workers.get(-1 if worker.successor_of is None else worker.successor_of)
        if predecessor is not None:
            predecessor.ends_by = time.monotonic() + self.settings.drain_s + _KILL_AFTER_S
            os.kill(predecessor.pid, signal.SIGUSR1)
        if not self._announced and all(other.ready for other in self._workers.values()):
            self._announced = True
            self.on_ready()

    def _answer_signals(self) -> None:
        while self._signals:
            match self._signals.pop(0):
                case signal.SIGHUP:
                    self._look_now = True
                    if not self._follows:
                        self._signal_all(signal.SIGHUP)
                case signal.SIGINT if self._stop_at is not None:
                    self._stop_at = time.monotonic()
                case signal.SIGTERM | signal.SIGINT if self._stop_at is None:
                    self._stop(0)

    def _stop(self, exit_code: int) -> None:
        settings = self.settings
        self._exit_code = exit_code
        self._stop_at = time.monotonic() + settings.drain_wait_s + settings.drain_s + _KILL_AFTER_S
        self._signal_all(signal.SIGTERM)
        for loader in self._loaders.values():
            loader.kill()
        self._coming = None
        self._due.clear()
        # The workers' own descriptors keep the port open as long as they want it.
        for listener in (*self.listeners, *self.admin):
            listener.close()

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        coming = self._coming
        limit_s = self.settings.reload_limit_s
        if coming is not None and coming.loaded is None:
            job, took_s = coming.job, now - coming.began
            if job.patient and took_s >= min(_PATIENCE_S, limit_s):
                # Requests leave too little over: from the start again, with a share of the processors.
                coming.kill()
                self._coming = self._load(job.path, job.stamp, coming.number)
            elif took_s >= limit_s:
                reason = f"it was not loaded within {limit_s:g} seconds (RECO_RELOAD_LIMIT_S)"
                self._gone_wrong(coming, reason)
        for worker in self._workers.values():
            if now >= worker.ends_by:
                worker.ends_by = math.inf
                self.say(f"worker {worker.slot} (pid {worker.pid}) took too long; killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        if self._stop_at is not None and self._workers and now >= self._stop_at:
            self.say(f"{len(self._workers)} workers did not end in time; killed")
            self._exit_code = self._exit_code or 1
            self._signal_all(signal.SIGKILL)
            self._reap(block=True)

    # -- a new bundle ---------------------------------------------------------------------------------------

    @property
    def _follows(self) -> bool:
        """Whether a reload is made here. Where a worker keeps in memory what users did, it must not be replaced."""
        return not keeps_state(self.settings)

    def _look(self) -> None:
        """Look at the pointer when it is time, and have what it names loaded if that is new."""
        if not self._follows or self._coming is not None or self._swap is not None:
            return
        if not self._look_now and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self.settings.reload_poll_s
        self._try_published(forced=self._look_now)
        self._look_now = False

    def _try_published(self, *, forced: bool = False) -> None:
        store = ArtifactStore(self.settings.artifacts)
        stamp = Stamp.of(store.pointer)
        if stamp == self._seen and (stamp is None or not forced):
            return
        self._seen = stamp
        try:
            path = store.current()
        except BundleRefused as error:
            self._not_taken_up("refused", str(error))
        except (RecoError, OSError) as error:
            self._not_taken_up("failed", str(error))
        else:
            if path.name == self._serving:
                if self._follows:
                    self._count("unchanged")
            else:
                self._coming = self._load(path, stamp, next(self._numbers), patient=True)

    def _load(self, path: Path, stamp: Stamp | None, number: int, *, patient: bool = False) -> Loader | None:
        job = Job(self.settings, path, stamp, self.loader.job.declared, patient=patient)
        try:
            loader = Loader.start(job, number, self._let_go, self.say)
        except OSError as error:
            self._not_taken_up("failed", f"no process for it: {error.strerror}")
            return None
        self._loaders[loader.pid] = loader
        return loader

    def _hear_outcome(self, loader: Loader) -> None:
        """Learn what became of a loading."""
        try:
            loader.hear()
        except BundleRefused as error:
            self._give_up(loader, "refused", str(error))
        except RecoError as error:
            self._give_up(loader, "failed", str(error))
        except LoaderLost as lost:
            self._gone_wrong(loader, str(lost) or _manner_of(self._end_of(loader)))
        else:
            if loader.number == self.loader.number:  # in the place of one that had died
                self.loader, self._coming = loader, None
            elif not self._follows:  # workers take it up for themselves; this is for those still to come
                self._promote(loader)
                self._swap = None

    def _gone_wrong(self, loader: Loader, how: str) -> None:
        self._give_up(loader, "failed", f"loading bundle {loader.job.path.name} went wrong: {how}")

    def _give_up(self, loader: Loader, result: str, reason: str) -> None:
        loader.kill()
        self._coming = None
        if loader.number == self.loader.number:
            self._revive_at = time.monotonic() + _BACK_OFF_S
            self.say(f"nobody can fork workers until a loader has loaded: {reason}")
        else:
            self._not_taken_up(result, reason)

    def _not_taken_up(self, result: str, reason: str) -> None:
        if not self._follows:  # each worker tries for itself, tells of it, and counts it
            self.say(f"the published bundle is not taken up: {reason}")
            return
        self._count(result)
        what = "is refused" if result == "refused" else "cannot be taken up"
        self._tell("ERROR", f"the published bundle {what}; the old one serves on", reason=reason)

    def _promote(self, coming: Loader) -> None:
        """From now on workers are of the new bundle: the first of them is ready."""
        before, self.loader, self._coming = self.loader, coming, None
        self._swap = _Swap(_id_of(before), coming.began)
        before.close()

    def _succeed(self) -> None:
        """Give the next worker that is worn, or of an old bundle, its successor: one at a time, so that the others
        have the processors. The next one's turn is when the last has passed its connections on.
        """
        newest = self._coming if self._coming is not None and self._coming.loaded is not None else self.loader
        now = time.monotonic()
        if now < self._succeed_at:
            return
        for worker in self._workers.values():
            if worker.successor_of in self._workers and not worker.ready:
                return
            if worker.retiring and not worker.left:
                return
        for worker in list(self._workers.values()):
            outdated = self._follows and worker.generation != newest.number
            if worker.ready and not worker.retiring and (worker.worn or outdated):
                worker.retiring = True
                if not self._fork(worker.slot, successor_of=worker.pid, loader=newest):
                    worker.retiring = False
                return
        swap = self._swap
        if swap is not None:
            self._swap = None
            self._count("ok")
            self._tell(
                "INFO", "a new bundle is live", bundle=self._serving, before=swap.before,
                seconds=round(now - swap.began, 3),
            )  # fmt: skip

    @property
    def _serving(self) -> str:
        return _id_of(self.loader)

    def _count(self, result: str) -> None:
        self._telemetry.reloads.labels(result).inc()

    def _tell(self, level: str, message: str, **fields: Any) -> None:
        """Write a line to the log, unless nobody reads it: no worker waits for a successor because of that."""
        self._log.event(time.time(), level, message, serving=self._serving, **fields)
        poll = select.poll()
        poll.register(_STDOUT, select.POLLOUT)
        if any(events & select.POLLOUT for _, events in poll.poll(0)):
            self._log.write_now()

    # -- birth and death ------------------------------------------------------------------------------------

    def _reap(self, *, block: bool = False) -> None:
        while self._workers or self._loaders:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            worker, loader = self._workers.pop(pid, None), self._loaders.pop(pid, None)
            if worker is not None:
                with contextlib.suppress(BlockingIOError, OSError):
                    worker.ready = worker.ready or READY in os.read(worker.ear, 64)
                os.close(worker.ear)
                self._bury(worker, code)
            if loader is not None:
                loader.ended = True
                self._bury_loader(loader, code)

    def _end_of(self, loader: Loader) -> int:
        """Wait for a loader whose link has ended; returns its exit code."""
        loader.kill()
        loader.ended = True
        self._loaders.pop(loader.pid, None)
        _, status = os.waitpid(loader.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _bury_loader(self, loader: Loader, code: int) -> None:
        """Have another take the place of the one that serves; one that was loading is told of by its link."""
        if self._stop_at is not None:
            return
        if loader is self._coming:
            if loader.loaded is None and _has_message(loader.link):
                self._hear_outcome(loader)
            if loader is self._coming:
                self._gone_wrong(loader, _manner_of(code))
        elif loader is self.loader:
            self.say(f"the loader (pid {loader.pid}) ended by {_manner_of(code)}; loading its bundle again")
            self._revive_at = 0.0

    def _revive(self) -> None:
        """Load the bundle that serves once more, for nobody can fork its workers."""
        if self.loader.pid in self._loaders or self._coming is not None:
            return
        if time.monotonic() >= self._revive_at:
            job = self.loader.job
            self._coming = self._load(job.path, job.stamp, self.loader.number)
            self._revive_at = time.monotonic() + _BACK_OFF_S

    def _bury(self, worker: _Worker, code: int) -> None:
        """Put another in its place, unless it was to go."""
        if self._stop_at is not None:
            return
        if worker.retiring and any(
            other.successor_of == worker.pid and other.ready for other in self._workers.values()
        ):
            return
        self.say(f"worker {worker.slot} (pid {worker.pid}) ended by {_manner_of(code)}; replacing it")
        at = time.monotonic()
        if not worker.ready and worker.successor_of in self._workers:
            self._stay(self._workers[worker.successor_of], worker, code)
            return
        if not worker.ready:
            self._stillbirths = [
                before for before in self._stillbirths if at - before < _STILLBIRTH_WINDOW_S
            ] + [at]
            if len(self._stillbirths) >= _STILLBIRTHS:
                if not any(other.ready for other in self._workers.values()):
                    self.say(f"{len(self._stillbirths)} workers died before they were ready: giving up")
                    self._stop(1)
                    return
                at += _BACK_OFF_S
                # Nobody will accept here for a while: let the kernel give connections to the others.
                for group in (self.listeners, self.admin):
                    for listener in group[worker.slot : worker.slot + 1]:
                        listener.close()
        self._due[worker.slot] = at

    def _stay(self, predecessor: _Worker, successor: _Worker, code: int) -> None:
        """Let a worker serve on whose successor died before it was ready; another is tried later."""
        predecessor.retiring = False
        self._succeed_at = time.monotonic() + _BACK_OFF_S
        coming = self._coming
        if coming is not None and coming.number == successor.generation:
            coming.stillborn += 1
            if coming.stillborn >= _MOST_STILLBORN:
                self._gone_wrong(coming, f"its workers die before they are ready, by {_manner_of(code)}")

    def _fill(self) -> None:
        """Fork for the slots that lost their worker, as they fall due."""
        self._revive()
        for slot, at in list(self._due.items()):
            if at > time.monotonic():
                continue
            if any(other.slot == slot and not other.retiring for other in self._workers.values()):
                del self._due[slot]
                continue
            if not self._follows and self._announced:
                self._try_published()  # a successor must not serve an older bundle than its siblings
                if self._coming is not None:
                    self._due[slot] = time.monotonic() + _BACK_OFF_S / 10
                    continue
            try:
                self._reopen(slot)
            except OSError as error:
                self.say(f"cannot listen for worker {slot}: {error.strerror}")
                self._due[slot] = time.monotonic() + _BACK_OFF_S
            else:
                if self._fork(slot):
                    del self._due[slot]
                else:
                    self._due[slot] = time.monotonic() + _BACK_OFF_S / 10

    def _reopen(self, slot: int) -> None:
        """Bind a slot's sockets again if they were closed while it could not be filled; its worker will listen."""
        for group, (family, address) in zip((self.listeners, self.admin), self._addresses, strict=False):
            if group[slot].fileno() < 0:
                group[slot] = bind_again(family, address)

    def _fork(self, slot: int, *, successor_of: int | None = None, loader: Loader | None = None) -> bool:
        """Have a loader (the one that serves, if none is given) fork a worker. False where it can't."""
        loader = loader or self.loader
        if loader.pid not in self._loaders:
            return False
        taken = {worker.identity for worker in self._workers.values()}
        identity = next(number for number in range(len(taken) + 1) if number not in taken)
        ear, mouth = os.pipe()
        hand_in, hand_out = self._channels[slot]
        place = Place(
            slot,
            identity,
            not self._follows,
            (self.listeners[slot].fileno(),),
            tuple(listener.fileno() for listener in self.admin[slot : slot + 1]),
            self._lifeline,
            mouth,
            hand_in.fileno(),
            hand_out.fileno(),
            str(self._shared),
        )
        try:
            pid = loader.fork(place)
        except LoaderLost as lost:
            self.say(f"the loader (pid {loader.pid}) forks no worker: {lost or 'it has ended'}")
            loader.kill()  # its end is heard of, and another takes its place
            os.close(ear)
            return False
        finally:
            os.close(mouth)
        os.set_blocking(ear, False)
        worker = _Worker(pid, slot, identity, ear, loader.number, successor_of=successor_of)
        if successor_of is not None:
            worker.ends_by = time.monotonic() + _BIRTH_S
        self._workers[pid] = worker
        return True

    def _let_go(self) -> None:
        """In a loader, just forked: close what is the parent's."""
        os.close(self._keep)
        os.close(self._lifeline)
        os.close(self._wakeup)
        for worker in self._workers.values():
            os.close(worker.ear)
        for loader in self._loaders.values():
            loader.link.close()
        for one in (*self.listeners, *self.admin, *(end for pair in self._channels for end in pair)):
            one.close()

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _id_of(loader: Loader) -> str:
    return loader.job.path.name


def _manner_of(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _has_message(link: socket.socket) -> bool:
    """Whether a whole message waits, and not only the end."""
    try:
        return bool(link.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _channel() -> tuple[socket.socket, socket.socket]:
    """A slot's channel: the end to receive at, and the end to send at."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in pair:
        one.setblocking(False)
    return pair


@contextlib.contextmanager
def _shared_folder() -> Iterator[Path]:
    """A private folder for the workers' metric files and their lock, gone with the parent."""
    given = os.environ.get(MULTIPROCESS_DIR)
    if given is not None:
        Path(given).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reco-metrics-", dir=given))
    with _environment({MULTIPROCESS_DIR: str(folder)}):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        _close((reader, writer))


@contextlib.contextmanager
def _heard(hear: Callable[[int], None]) -> Iterator[int]:
    """Hand the parent's signals to `hear`; yields a descriptor that becomes readable when one has come."""
    with _pipe() as (reader, writer):
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        before = {number: signal.signal(number, lambda heard, _frame: hear(heard)) for number in _SIGNALS}
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)


def _empty(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 512):
            pass


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
