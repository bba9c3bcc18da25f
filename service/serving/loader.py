"""A loader: the process that loads one bundle, proves it, and forks the workers that serve it.

The parent starts one for each bundle. Native code that a crafted file brings down, or never to an end, costs a loader
and nothing else. The loading runs in a thread of low priority, so that it takes the processor time that requests leave
over; the thread has ended, and with it the priority, when the first worker is forked. All workers of a bundle, the
first and the one that replaces a dead one days later, share the memory of its one loading.

A worker is no child of its loader: it is forked twice, and falls to the parent, which has declared itself its
descendants' reaper (Linux). So the parent learns of every worker's end, whatever has become of the loader.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from service.api.auth import Gate
from service.api.compat.botify_station import check_station
from service.bundle.reader import load_bundle
from service.errors import BundleRefused, InputError, RecoError
from service.recommender.live import LiveBundle, go_live
from service.serving.reload import Declared, Published, Stamp
from service.serving.worker import Seat, run_worker
from service.settings import Settings
from service.telemetry import MULTIPROCESS_DIR

LOADER, WORKER = "reco-loader", "reco-worker"
"""What processes are called in `ps` (`/proc/PID/comm`)."""
_PR_SET_CHILD_SUBREAPER = 36
_NICENESS, _LOWEST = 10, 19
"""Added by a loader that is not patient: it gets a tenth of a busy processor, so loading ends under any load."""
_FORK_S = 30.0
"""A loader at rest forks within milliseconds; one that has not by then is lost."""
_MESSAGE_BYTES = 1 << 16
_MOST_DESCRIPTORS = 16
_FIRST_ROW = np.zeros(1, np.int32)

Say = Callable[[str], None]


class LoaderLost(Exception):
    """A loader ended, or does not answer."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader tells of its bundle. `example_user`: one that the bundle knows."""

    bundle_id: str
    models: tuple[str, ...]
    example_user: str

    @classmethod
    def of(cls, live: LiveBundle) -> Loaded:
        """Tell of a bundle that is live."""
        ids = live.bundle.user_ids
        user = str(ids.take(_FIRST_ROW)[0]) if len(ids) else "1"
        models = tuple(sorted(name for name in live.models if name != "default"))
        return cls(live.bundle_id, models, user)


@dataclass(frozen=True, slots=True)
class Job:
    """What to load. `first`: at the start nothing serves yet, and whatever does not fit the bundle ends the service.

    `stamp`: of the pointer, from before it was read.
    """

    settings: Settings
    path: Path
    stamp: Stamp | None
    declared: Declared
    first: bool = False
    patient: bool = False
    """Load with what processor time nobody else wants, however little that is."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker is forked with: the parent's descriptors, each handed to the loader for this fork.

    `hand_in`, `hand_out`: ends of the slot's channel of connections. `mouth`: where the worker speaks to the parent.
    """

    slot: int
    identity: int
    follows: bool
    """Whether the worker follows the pointer itself."""
    listeners: tuple[int, ...]
    admin: tuple[int, ...]
    lifeline: int
    mouth: int
    hand_in: int
    hand_out: int
    shared: str
    """Folder of the workers' metric files and their lock."""

    def message(self) -> tuple[bytes, list[int]]:
        """Write it down for the loader: JSON, and the descriptors beside it."""
        descriptors = [
            *self.listeners, *self.admin, self.lifeline, self.mouth, self.hand_in, self.hand_out,
        ]  # fmt: skip
        facts = [self.slot, self.identity, self.follows, len(self.listeners), len(self.admin), self.shared]
        return orjson.dumps(facts), descriptors

    @classmethod
    def read(cls, message: bytes, descriptors: Sequence[int]) -> Place:
        """Read what `message` wrote; the descriptors are this process's own."""
        slot, identity, follows, n_listeners, n_admin, shared = orjson.loads(message)
        listeners, rest = tuple(descriptors[:n_listeners]), tuple(descriptors[n_listeners:])
        admin, (lifeline, mouth, hand_in, hand_out) = rest[:n_admin], rest[n_admin:]
        return cls(
            slot, identity, follows, listeners, admin, lifeline, mouth, hand_in, hand_out, shared
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Loader:
    """The parent's side. `number`: of the generation. `loaded`: None until it has told."""

    number: int
    job: Job
    pid: int
    link: socket.socket
    began: float
    loaded: Loaded | None = None
    stillborn: int = 0
    """Its workers that died before they were ready."""
    ended: bool = False
    """Its exit code was taken: the pid may be another's."""

    @classmethod
    def start(cls, job: Job, number: int, let_go: Callable[[], None], say: Say) -> Loader:
        """Fork a loader. `let_go` closes, in the child, what is the parent's alone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What is still buffered would be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(job, theirs, ours, let_go, say))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return cls(number, job, pid, ours, time.monotonic())

    def hear(self) -> Loaded:
        """Wait for the outcome of the loading. Raises BundleRefused, InputError, or LoaderLost."""
        try:
            message = self.link.recv(_MESSAGE_BYTES)
        except OSError as error:
            raise LoaderLost(str(error)) from None
        if not message:
            raise LoaderLost
        told = orjson.loads(message)
        match told["outcome"]:
            case "loaded":
                self.loaded = Loaded(told["bundle_id"], tuple(told["models"]), told["example_user"])
                return self.loaded
            case "refused":
                raise BundleRefused(told["file"], told["reason"])
            case "unfit":
                raise InputError(told["reason"])
            case _:
                raise LoaderLost(told["reason"])

    def fork(self, place: Place) -> int:
        """Have a worker forked; returns its pid, a child of this process. Raises LoaderLost."""
        message, descriptors = place.message()
        try:
            self.link.settimeout(_FORK_S)
            socket.send_fds(self.link, [message], descriptors)
            answer = self.link.recv(_MESSAGE_BYTES)
        except OSError as error:
            raise LoaderLost(str(error)) from None
        if not answer:
            raise LoaderLost
        pid: int = orjson.loads(answer)
        if pid <= 0:
            raise LoaderLost("it cannot fork")
        return pid

    def close(self) -> None:
        """Let it end."""
        self.link.close()

    def kill(self) -> None:
        """End it now, whatever it does."""
        self.link.close()
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)


_HEARD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1,
)  # fmt: skip


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind. Raises OSError where the system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot adopt orphans")


def call_this_process(name: str) -> None:
    """Set the name that `ps` shows."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def settle() -> None:
    """Collect garbage, then take what is left out of the collector's sight: forks share pages that nobody writes.

    What the parent took out of sight stays so: to look at it again would copy every page of it.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


# -- in the loader ----------------------------------------------------------------------------------------------


def _in_child(
    job: Job, link: socket.socket, parents: socket.socket, let_go: Callable[[], None], say: Say
) -> int:
    """Load, tell, and fork until the parent closes the link. Nothing may return into the parent's code."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _HEARD:
            # A terminal's Ctrl-C and a group's SIGHUP are the parent's to hear.
            signal.signal(number, signal.SIG_IGN if number in _NOT_OURS else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        parents.close()
        let_go()
        call_this_process(LOADER)
        live = _load_beside(job, link)
        if live is None:
            return 0
        published = Published(live, job.stamp, job.declared)
        settle()
        _tell(link, "loaded", **_facts(Loaded.of(live)))
        return _fork_on_demand(job.settings, published, link, say)
    except BundleRefused as error:
        _tell(link, "refused", file=error.file, reason=error.reason)
    except (RecoError, OSError) as error:
        _tell(link, "unfit", reason=str(error) or repr(error))
    except BaseException as error:
        traceback.print_exc()
        _tell(link, "broke", reason=repr(error))
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    return 1


_NOT_OURS = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})


def _facts(loaded: Loaded) -> dict[str, Any]:
    return {
        "bundle_id": loaded.bundle_id,
        "models": loaded.models,
        "example_user": loaded.example_user,
    }


def _tell(link: socket.socket, outcome: str, **facts: Any) -> None:
    for name in ("file", "reason"):
        if name in facts:
            facts[name] = facts[name][: _MESSAGE_BYTES // 8]
    with contextlib.suppress(OSError):  # the parent is gone
        link.send(orjson.dumps({"outcome": outcome, **facts}))


def _load_beside(job: Job, link: socket.socket) -> LiveBundle | None:
    """Load in a thread of low priority; None where the parent has ended meanwhile, and nobody waits for it any more.

    The priority is the thread's alone (Linux), so the workers, forked from this one, have the parent's.
    """
    done, over = os.pipe()
    found: list[LiveBundle | Exception] = []

    def load() -> None:
        try:
            found.append(_load(job))
        except Exception as error:
            found.append(error)
        finally:
            os.close(over)

    thread = threading.Thread(target=load, name="load", daemon=True)
    thread.start()
    poll = select.poll()
    poll.register(done, select.POLLIN)
    poll.register(link, select.POLLIN)
    heard = {descriptor for descriptor, _ in poll.poll()}
    if done not in heard:
        return None
    thread.join()
    os.close(done)
    (outcome,) = found or [RuntimeError("the loading thread was ended")]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _step_back(*, patient: bool) -> None:
    """Lower this thread's priority. There is no way back without a privilege."""
    if patient:
        # Woken, a worker takes the processor from a thread of this class at once, and not at its time slice's end.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        thread = threading.get_native_id()
        usual = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(usual + _NICENESS, _LOWEST))


def _load(job: Job) -> LiveBundle:
    if not job.first:
        _step_back(patient=job.patient)
    # What a stage costs is judged by this thread's processor time: others take their turns in between.
    live = go_live(load_bundle(job.path), retriever=job.settings.retriever, clock=time.thread_time)
    if job.first:
        job.declared.check(job.settings, live)
        if "botify" in job.settings.profiles:
            check_station(job.settings, live)
    return live


def _fork_on_demand(settings: Settings, published: Published, link: socket.socket, say: Say) -> int:
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(link, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
        except ConnectionResetError:
            return 0
        if not message:
            return 0
        # No signal between the fork and the worker's own handlers: it would be lost, or taken for the loader's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        pid = _fork_twice(settings, published, link, Place.read(message, descriptors), say)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for descriptor in descriptors:
            os.close(descriptor)
        try:
            link.send(orjson.dumps(pid))
        except OSError:
            return 0


def _fork_twice(settings: Settings, published: Published, link: socket.socket, place: Place, say: Say) -> int:
    """Fork a worker whose parent is gone when this returns. 0 where the system has no room for it."""
    told, tells = os.pipe()
    try:
        between = os.fork()
    except OSError:
        between = -1
    if between == 0:
        try:
            worker = os.fork()
        except OSError:
            os._exit(1)
        if worker == 0:
            os.close(told)
            os.close(tells)
            link.close()
            os._exit(_become_worker(settings, published, place, say))
        os.write(tells, b"%d" % worker)
        os._exit(0)
    os.close(tells)
    if between > 0:
        os.waitpid(between, 0)
    answer = os.read(told, 32)
    os.close(told)
    return int(answer or 0)


def _become_worker(settings: Settings, published: Published, place: Place, say: Say) -> int:
    """In the worker: serve. Nothing may return into the loader's code."""
    try:
        call_this_process(WORKER)
        os.environ[MULTIPROCESS_DIR] = place.shared
        for number in _HEARD:
            signal.signal(number, signal.SIG_DFL)
        seat = Seat(
            _sockets(place.listeners),
            _sockets(place.admin),
            place.lifeline,
            lambda word: _write(place.mouth, word),
            Path(place.shared) / "reload.lock",
            place.follows,
            *_sockets((place.hand_in, place.hand_out)),
        )
        # What was found in order at the start may have changed since: better a line here than a traceback.
        Gate(settings)
        return run_worker(settings.model_copy(update={"worker_slot": place.identity}), published, seat)
    except RecoError as error:
        say(f"worker {place.slot} cannot start: {error}")
        return 2
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _sockets(descriptors: Sequence[int]) -> tuple[socket.socket, ...]:
    made = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
    for one in made:
        one.setblocking(False)
    return made


def _write(descriptor: int, word: bytes) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the lifeline tells
        os.write(descriptor, word)
