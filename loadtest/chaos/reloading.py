"""Publishing under load: which bundle each answer says it is from, and whether it is that bundle's answer."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtest.chaos.service import PATIENCE_S, KilledService, Unkept
from loadtest.openloop.connection import Answer, Connection, Flight
from loadtest.openloop.histogram import Histogram

_BUNDLE = re.compile(rb"\r\nx-reco-bundle: *(\w+)", re.IGNORECASE)
_DEGRADED = re.compile(rb"\r\nx-reco-degraded:", re.IGNORECASE)
_REFUSED = b"the published bundle is refused"


_QUIET_S = 0.3


class Watch:
    """Holds every whole answer against the first of the same bundle and request: another body is a mixture."""

    def __init__(self) -> None:
        self._bodies: dict[tuple[bytes, str], bytes] = {}
        self._connections: set[Connection] = set()
        self.mixed = 0
        self.bundles: dict[str, float] = {}
        """Bundle -> when it last answered, seconds on the monotonic clock."""
        self.windows: dict[bool, list[Histogram]] = {True: [], False: []}
        """Latencies of right answers, stretch by stretch: of a service left alone (True), and while it reloads."""
        self._window: Histogram | None = None

    @property
    def connections(self) -> int:
        """How many were answered over: each that a client had to make anew counts again."""
        return len(self._connections)

    def begin(self, *, calm: bool) -> None:
        """Begin a stretch."""
        self._window = Histogram()
        self.windows[calm].append(self._window)

    def end(self) -> None:
        """End it; what is answered until the next belongs to none."""
        self._window = None

    def latency(self, *, calm: bool) -> Histogram:
        """Of all stretches of a kind."""
        whole = Histogram()
        for window in self.windows[calm]:
            whole.add(window)
        return whole

    def usual_p99_s(self, *, calm: bool) -> float:
        """The median of the stretches' own 99th percentiles: a moment's stall of the machine moves it little."""
        found = sorted(window.quantile(0.99) for window in self.windows[calm])
        return found[len(found) // 2] if found else 0.0

    def only(self, wanted: str, other: str, since: float) -> bool:
        """Whether one bundle has answered since a time, and the other for a while no more."""
        answered = self.bundles.get
        return answered(wanted, 0) > since and time.monotonic() - answered(other, 0) > _QUIET_S

    def observe(self, flight: Flight, answer: Answer, latency: float) -> None:
        """Look at one answer."""
        if flight.connection is not None:
            self._connections.add(flight.connection)
        if self._window is not None and answer.status == 200:
            self._window.record(latency)
        found = _BUNDLE.search(answer.head)
        if answer.status != 200 or found is None:
            return
        self.bundles[found[1].decode()] = time.monotonic()
        if _DEGRADED.search(answer.head) is None:
            first = self._bodies.setdefault((found[1], flight.shot.request.path), answer.body)
            self.mixed += first != answer.body


async def publish_all(
    service: KilledService, artifacts: Path, watch: Watch, count: int, *, pause_s: float, calm_s: float
) -> list[int]:
    """Publish one bundle after the other, every fourth a corrupt copy.

    Returns the memory after the first, the tenth, and the last, bytes.
    After every fourth the service is left alone for `calm_s` seconds: what it is held against is measured in turn with
    it, on the same machine with the same neighbours. Raises Unkept where a whole bundle is not taken up by all, or a
    corrupt one is not refused.
    """
    ids = sorted(path.name for path in (artifacts / "bundles").iterdir() if not path.name.startswith("."))
    corrupt = _corrupt_copy(artifacts, ids[1])
    memory = []
    for number in range(count):
        watch.begin(calm=False)
        if number % 4 == 3:
            before = service.said(_REFUSED)
            _point(artifacts, corrupt)
            refused = partial(_more_said, service, before)
            await _until(refused, "a corrupt bundle was not refused")
        else:
            wanted = ids[(number + 1) % 2]
            began = time.monotonic()
            _point(artifacts, wanted)
            taken_up = partial(watch.only, wanted, ids[number % 2], began)
            await _until(taken_up, "a published bundle was not taken up by all")
        await asyncio.sleep(pause_s)
        watch.end()
        if number in (0, 9, count - 1):
            memory.append(await asyncio.to_thread(_settled, service))
        if number % 4 == 3:
            await asyncio.sleep(min(pause_s, calm_s))
            watch.begin(calm=True)
            await asyncio.sleep(calm_s)
            watch.end()
    return memory


def _more_said(service: KilledService, before: int) -> bool:
    return service.said(_REFUSED) > before


async def _until(condition: Callable[[], bool], complaint: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise Unkept(complaint)
        await asyncio.sleep(0.02)


def _settled(service: KilledService) -> int:
    """The least of ten looks at the memory: in some of them an old process is still ending."""
    looks = []
    for _ in range(10):
        looks.append(resident(service))
        time.sleep(0.2)
    return min(looks)


def resident(service: KilledService) -> int:
    """Memory of all its processes together, bytes, shared pages divided among who shares them (PSS)."""
    total = 0
    for pid in service.processes():
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) << 10
    return total


def _corrupt_copy(artifacts: Path, bundle_id: str) -> str:
    name = bundle_id[::-1]
    folder = artifacts / "bundles" / name
    shutil.copytree(artifacts / "bundles" / bundle_id, folder)
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    return name


def _point(artifacts: Path, bundle_id: str) -> None:
    """Publish without the check that `reco bundle publish` makes: as a damaged disk would, and at no cost beside the
    service that is measured.
    """
    draft = artifacts / ".draft"
    draft.write_text(json.dumps({"bundle_id": bundle_id, "published_at": "", "history": []}))
    draft.replace(artifacts / "current.json")
