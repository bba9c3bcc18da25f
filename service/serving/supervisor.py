"""The parent of the workers: loads the bundle once, forks, replaces who dies, and passes signals on.

It never runs an event loop or a thread, so a fork at any time copies a process at rest. It keeps every listening
socket open: connections that wait for a dead worker are served by its successor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.api.auth import Gate
from service.bundle.store import ArtifactStore
from service.errors import RecoError
from service.serving.listeners import Address, bind_again
from service.serving.reload import Published, Stamp, load_published
from service.serving.worker import READY, WORN, Seat, run_worker
from service.settings import Settings
from service.telemetry import MULTIPROCESS_DIR

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STILLBIRTHS = 5
_STILLBIRTH_WINDOW_S = 10.0
_BACK_OFF_S = 1.0
_KILL_AFTER_S = 3.0
"""Given to a worker over its own limits before it is killed."""
Say = Callable[[str], None]


@dataclass(slots=True)
class _Worker:
    pid: int
    slot: int
    identity: int
    """Names its metric files: never that of another living worker."""
    ear: int
    ready: bool = False
    retiring: bool = False
    successor_of: int | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs workers until told to stop. `listeners`, `admin`: a socket for each slot (`admin` may be empty)."""

    settings: Settings
    published: Published
    listeners: list[socket.socket]
    admin: list[socket.socket]
    on_ready: Callable[[], None]
    say: Say
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _stillbirths: list[float] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _stop_at: float | None = None
    _exit_code: int = 0
    _announced: bool = False
    _due: dict[int, float] = field(default_factory=dict)
    """Slot -> when to fork for it, seconds on the monotonic clock."""
    _not_taken_up: Stamp | None = None
    _addresses: list[tuple[int, Address]] = field(default_factory=list)
    _shared: Path = field(default_factory=Path)
    _lifeline: int = -1
    _keep: int = -1
    _wakeup: int = -1

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. A second SIGINT ends at once."""
        with (
            _shared_folder() as self._shared,
            _pipe() as (self._lifeline, self._keep),
            _heard(self._signals.append) as self._wakeup,
        ):
            self._addresses = [
                (group[0].family, group[0].getsockname()) for group in (self.listeners, self.admin) if group
            ]
            try:
                for slot in range(len(self.listeners)):
                    self._fork(slot)
                while self._workers or self._due:
                    self._wait()
                    self._answer_signals()
                    self._reap()
                    self._fill()
                    self._enforce_limit()
            finally:
                self._signal_all(signal.SIGKILL)
                self._reap(block=True)
        return self._exit_code

    # -- one turn -------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until a worker speaks, a signal comes, or a limit may have passed."""
        ears = {worker.ear: worker for worker in self._workers.values()}
        limits = [*self._due.values(), *([] if self._stop_at is None else [self._stop_at])]
        timeout = max(0.0, min(limits, default=math.inf) - time.monotonic())
        # poll, not select: descriptors may be above 1023.
        poll = select.poll()
        for descriptor in (self._wakeup, *ears):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(min(timeout, 1.0) * 1000):
            if descriptor == self._wakeup:
                _empty(descriptor)
            elif descriptor in ears:
                self._hear(ears[descriptor])

    def _hear(self, worker: _Worker) -> None:
        with contextlib.suppress(BlockingIOError):
            words = os.read(worker.ear, 64)
            if READY in words:
                self._ready(worker)
            if WORN in words and not worker.retiring and self._stop_at is None:
                worker.retiring = True
                self._fork(worker.slot, successor_of=worker.pid)

    def _ready(self, worker: _Worker) -> None:
        worker.ready = True
        if worker.successor_of in self._workers:
            os.kill(worker.successor_of, signal.SIGUSR1)
        if not self._announced and all(other.ready for other in self._workers.values()):
            self._announced = True
            self.on_ready()

    def _answer_signals(self) -> None:
        while self._signals:
            match self._signals.pop(0):
                case signal.SIGHUP:
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
        # The workers' own descriptors keep the port open as long as they want it.
        for listener in (*self.listeners, *self.admin):
            listener.close()

    def _enforce_limit(self) -> None:
        if self._stop_at is not None and self._workers and time.monotonic() >= self._stop_at:
            self.say(f"{len(self._workers)} workers did not end in time; killed")
            self._exit_code = self._exit_code or 1
            self._signal_all(signal.SIGKILL)
            self._reap(block=True)

    # -- birth and death ------------------------------------------------------------------------------------

    def _reap(self, *, block: bool = False) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                with contextlib.suppress(BlockingIOError, OSError):
                    worker.ready = worker.ready or READY in os.read(worker.ear, 64)
                os.close(worker.ear)
                self._bury(worker, os.waitstatus_to_exitcode(status))

    def _bury(self, worker: _Worker, code: int) -> None:
        """Put another in its place, unless it was to go."""
        if self._stop_at is not None:
            return
        if worker.retiring and any(
            other.successor_of == worker.pid and other.ready for other in self._workers.values()
        ):
            return
        if worker.successor_of in self._workers:
            # Its predecessor serves on, and is worn no longer: it would only ask again.
            self._workers[worker.successor_of].retiring = False
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.say(f"worker {worker.slot} (pid {worker.pid}) ended by {how}; replacing it")
        at = time.monotonic()
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

    def _fill(self) -> None:
        """Fork for the slots that lost their worker, as they fall due."""
        for slot, at in list(self._due.items()):
            if self._stop_at is not None or at <= time.monotonic():
                del self._due[slot]
                if self._stop_at is None and not any(
                    other.slot == slot and not other.retiring for other in self._workers.values()
                ):
                    try:
                        self._reopen(slot)
                    except OSError as error:
                        self.say(f"cannot listen for worker {slot}: {error.strerror}")
                        self._due[slot] = time.monotonic() + _BACK_OFF_S
                    else:
                        self._fork(slot)

    def _reopen(self, slot: int) -> None:
        """Bind a slot's sockets again if they were closed while it could not be filled; its worker will listen."""
        for group, (family, address) in zip((self.listeners, self.admin), self._addresses, strict=False):
            if group[slot].fileno() < 0:
                group[slot] = bind_again(family, address)

    def _fork(self, slot: int, *, successor_of: int | None = None) -> None:
        self._take_up_newest()
        taken = {worker.identity for worker in self._workers.values()}
        identity = next(number for number in range(len(taken) + 1) if number not in taken)
        ear, mouth = os.pipe()
        # What is still buffered would be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        # No signal between the fork and the worker's own handlers: it would be lost, or taken for the parent's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, signal.SIGUSR1))
        pid = os.fork()
        if pid == 0:
            os._exit(self._become_worker(slot, identity, mouth, ear))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(mouth)
        os.set_blocking(ear, False)
        self._workers[pid] = _Worker(pid, slot, identity, ear, successor_of=successor_of)

    def _become_worker(self, slot: int, identity: int, mouth: int, ear: int) -> int:
        """In the child: let go of what is the parent's, and serve. Nothing may return into the parent's code."""
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.close(self._keep)
            os.close(ear)
            for worker in self._workers.values():
                os.close(worker.ear)
            for other, listener in enumerate(self.listeners):
                if other != slot:
                    listener.close()
            for other, listener in enumerate(self.admin):
                if other != slot:
                    listener.close()
            seat = Seat(
                (self.listeners[slot],),
                tuple(self.admin[slot : slot + 1]),
                self._lifeline,
                lambda word: _write(mouth, word),
                self._shared / "reload.lock",
            )
            # What the parent found in order may have changed since: better a line here than the framework's traceback.
            Gate(self.settings)
            return run_worker(
                self.settings.model_copy(update={"worker_slot": identity}), self.published, seat
            )
        except RecoError as error:
            self.say(f"worker {slot} cannot start: {error}")
            return 2
        except SystemExit as left:
            return left.code if isinstance(left.code, int) else 1
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()

    def _take_up_newest(self) -> None:
        """Hold the newest bundle, so that a successor never serves an older one than its siblings."""
        store = ArtifactStore(self.settings.artifacts)
        stamp = Stamp.of(store.pointer)
        if stamp is None or stamp in (self.published.stamp, self._not_taken_up):
            return
        try:
            if store.current().name == self.published.live.bundle_id:
                self.published = dataclasses.replace(self.published, stamp=stamp)
                return
            fresh = load_published(self.settings)
            self.published = dataclasses.replace(fresh, experiments=self.published.experiments)
        except (RecoError, OSError) as error:
            # The successor sees that the pointer is not what it was forked with, tries for itself, and counts it.
            self._not_taken_up = stamp
            self.say(f"the published bundle is not taken up: {error}")
        else:
            settle()

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def settle() -> None:
    """Collect garbage, then take what is left out of the collector's sight: forks share pages that nobody writes."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.enable()


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


def _write(descriptor: int, word: bytes) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the lifeline tells
        os.write(descriptor, word)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
