"""Independent parts of a long computation, each in a process forked for it, as many at once as there are cores.

    found = answers([lambda: Answer(1, {"squares": squares(part)}) for part in parts])

A part sees all that its parent holds, costs no copy of it, and gives back what JSON can say and arrays: nothing is
pickled. What it finds may not depend on where it runs, so that one core ends as eight do. A part computes with arrays,
on one thread. After a fork the threads that a library had are gone, and polars would wait for them for ever.
"""

from __future__ import annotations

import gc
import os
import resource
import selectors
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson
import threadpoolctl

from service.errors import InputError

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""Of a unit of `ru_maxrss`."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a part found. `facts`: what JSON can say. `arrays`: of numbers or truth values, any shape."""

    facts: Any = None
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


Part = Callable[[], Answer]


class _Here:
    """What this process knows of itself: whether it is a part of another, and the most that its parts ever held."""

    def __init__(self) -> None:
        self.is_part = False
        self.peak_with_parts = 0


_here = _Here()


def cores() -> int:
    """Tell how many parts to run at once: the cores this process may use; 1 in a part, and where nothing forks."""
    if _here.is_part or not hasattr(os, "fork"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def peak_memory_mb() -> float:
    """Tell the most that this process, and its parts with it, have held so far, in MB (10^6 bytes).

    A part counts with what it held beyond its parent's pages, or with what is its own at its end, if that is more.
    Parts that ran at once are taken to have peaked at once.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
    return round(max(own, _here.peak_with_parts) / 1e6, 1)


def shares(n: int, parts: int) -> list[slice]:
    """Cut n things into at most so many spans of nearly equal length, none empty."""
    bounds = np.linspace(0, n, min(parts, n) + 1).astype(np.int64).tolist()
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def answers(
    parts: Sequence[Part],
    *,
    at_once: int | None = None,
    on_done: Callable[[int, Answer], object] = lambda _place, _answer: None,
) -> list[Answer]:
    """Run the parts, `at_once` of them (None: `cores()`) side by side, begun in order; their answers, in order.

    With one at once, or a single part, they run in this process. `on_done` hears of each as it ends. Raises what a
    part raised: InputError as it is, anything else as RuntimeError with its traceback; the others are ended first.
    """
    at_once = cores() if at_once is None else at_once
    if at_once <= 1 or len(parts) <= 1 or cores() == 1:
        return list(_in_turn(parts, on_done))
    found: dict[int, Answer] = {}
    running: dict[int, _Child] = {}
    grown: list[int] = []
    before = _resident()
    with selectors.DefaultSelector() as selector:
        try:
            while len(found) < len(parts):
                while len(running) < at_once and len(found) + len(running) < len(parts):
                    place = len(found) + len(running)
                    running[place] = _Child(parts[place])
                    selector.register(running[place].alive, selectors.EVENT_READ, place)
                for key, _ in selector.select():
                    child = running.pop(key.data)
                    selector.unregister(child.alive)
                    found[key.data], size = child.answer()
                    grown.append(size)
                    on_done(key.data, found[key.data])
        finally:
            for child in running.values():
                child.end()
    at_their_peak = sum(sorted(grown, reverse=True)[:at_once])
    _here.peak_with_parts = max(_here.peak_with_parts, before + at_their_peak)
    return [found[place] for place in range(len(parts))]


def _in_turn(parts: Sequence[Part], on_done: Callable[[int, Answer], object]) -> Iterator[Answer]:
    for place, part in enumerate(parts):
        answer = part()
        on_done(place, answer)
        yield answer


class _Child:
    """A process that runs one part. Its answer goes to a file without a name; `alive` ends when it does."""

    def __init__(self, part: Part) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="reco-part-")  # noqa: SIM115 (closed by `answer` or `end`)
        self.alive, ends = os.pipe()
        with warnings.catch_warnings():
            # From Python 3.12 on a fork beside threads is warned of: see the module on what a part may do.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            os.close(self.alive)
            _run(part, self._file)
        os.close(ends)

    def answer(self) -> tuple[Answer, int]:
        """Reap it and read what it wrote; also the most bytes it held beyond its parent's."""
        status, most = self._reaped()
        try:
            if status != 0:
                raise RuntimeError(f"a part of the build was ended by signal {-status}" if status < 0 else
                                   f"a part of the build ended with {status}")  # fmt: skip
            self._file.seek(0)
            head = orjson.loads(self._file.readline())
            if "failed" in head:
                raise (
                    InputError(head["said"]) if head["failed"] == "InputError" else RuntimeError(head["said"])
                )
            arrays = {name: _array(self._file, kind, shape) for name, kind, shape in head["arrays"]}
        finally:
            self._file.close()
        return Answer(head["facts"], arrays), max(most - head["began"], head["own"])

    def end(self) -> None:
        """End it at once: nobody wants its answer."""
        os.kill(self._pid, signal.SIGKILL)
        self._reaped()
        self._file.close()

    def _reaped(self) -> tuple[int, int]:
        os.close(self.alive)
        _, status, usage = os.wait4(self._pid, 0)
        return os.waitstatus_to_exitcode(status), usage.ru_maxrss * _MAXRSS_BYTES


def _run(part: Part, file: IO[bytes]) -> None:
    """Be the child: run, write, end. Nothing of the parent's own end (its buffers, its exit hooks) happens here."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _here.is_part = True
        gc.freeze()  # what the parent made is no garbage of ours, and looking at it would copy its pages
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # for libraries yet to be loaded
        with threadpoolctl.threadpool_limits(1):
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            _write(file, _head_and_arrays(part))
        status = 0
    except KeyboardInterrupt:
        pass  # the parent was interrupted too
    except BaseException:  # a disk that is full, say; the parent sees the status
        traceback.print_exc()
    finally:
        os._exit(status)


def _head_and_arrays(part: Part) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    began = _resident()
    try:
        answer = part()
    except InputError as error:
        return {"failed": "InputError", "said": str(error)}, []
    except Exception:  # it is raised again, in the parent
        return {"failed": "", "said": traceback.format_exc()}, []
    arrays = {name: np.asarray(array, order="C") for name, array in answer.arrays.items()}
    listed = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    return {"facts": answer.facts, "arrays": listed, "began": began, "own": _own()}, list(arrays.values())


def _write(file: IO[bytes], told: tuple[dict[str, Any], list[npt.NDArray[Any]]]) -> None:
    head, arrays = told
    file.write(orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    for array in arrays:
        file.write(array.data if array.size else b"")
    file.flush()


def _array(file: IO[bytes], kind: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    dtype = np.dtype(kind)
    if dtype.hasobject:
        raise RuntimeError(f"an array of {kind} is not of numbers")
    array = np.empty(tuple(shape), dtype)
    if array.size and file.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
        raise RuntimeError("a part of the build wrote less than it said")
    return array


def _resident() -> int:
    """Bytes of memory this process holds now; the most it ever held, where that can't be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
    return pages * resource.getpagesize()


def _own() -> int:
    """Bytes that a part holds by itself, copies of its parent's pages among them; 0 where that can't be told."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))
