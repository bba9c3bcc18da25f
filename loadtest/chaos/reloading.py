"""Publishing under load: which bundle each answer says it is from, and whether it is that bundle's answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import time
from pathlib import Path

from loadtest.chaos.service import PATIENCE_S, KilledService, Unkept, reco
from loadtest.openloop.connection import Answer, Connection, Flight
from loadtest.openloop.histogram import Histogram

_BUNDLE = re.compile(rb"\r\nx-reco-bundle: *(\w+)", re.IGNORECASE)
_DEGRADED = re.compile(rb"\r\nx-reco-degraded:", re.IGNORECASE)
_REFUSED = re.compile(rb'^reco_reload_total\{result="refused"\} ([0-9.e+]+)$', re.MULTILINE)


class Watch:
    """Holds every whole answer against the first of the same bundle and request: another body is a mixture."""

    def __init__(self) -> None:
        self._bodies: dict[tuple[bytes, str], bytes] = {}
        self._connections: set[Connection] = set()
        self.mixed = 0
        self.bundles: dict[str, float] = {}
        """Bundle -> when it last answered, seconds on the monotonic clock."""
        self.calm: bool | None = None
        """Whether latencies are those of a service left alone; None: of neither kind."""
        self.latency = {True: Histogram(), False: Histogram()}
        """Of right answers: left alone, and while it reloads."""

    @property
    def connections(self) -> int:
        """How many were answered over: each that a client had to make anew counts again."""
        return len(self._connections)

    def observe(self, flight: Flight, answer: Answer, latency: float) -> None:
        """Look at one answer."""
        if flight.connection is not None:
            self._connections.add(flight.connection)
        if self.calm is not None and answer.status == 200:
            self.latency[self.calm].record(latency)
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
    """Publish one bundle after the other, every fourth a corrupt copy; returns the memory after each, bytes.

    After every fourth the service is left alone for `calm_s` seconds: what it is held against is measured in turn with
    it, on the same machine with the same neighbours. Raises Unkept where a whole bundle is not taken up by all, or a
    corrupt one is not refused.
    """
    ids = sorted(path.name for path in (artifacts / "bundles").iterdir() if not path.name.startswith("."))
    corrupt = _corrupt_copy(artifacts, ids[1])
    memory = []
    for number in range(count):
        watch.calm = False
        if number % 4 == 3:
            before = _refused(service)
            _point(artifacts, corrupt)
            await _until(lambda before=before: _refused(service) > before, "a corrupt bundle was not refused")
        else:
            wanted = ids[(number + 1) % 2]
            began = time.monotonic()
            done = await asyncio.to_thread(
                reco, "bundle", "publish", "--artifacts", artifacts, wanted, beside=True
            )
            if done.returncode != 0:
                raise Unkept(done.stderr.decode())
            other = ids[number % 2]
            await _until(
                lambda wanted=wanted, other=other, began=began: (
                    watch.bundles.get(wanted, 0) > began
                    and time.monotonic() - watch.bundles.get(other, 0) > 0.3
                ),
                "a published bundle was not taken up by all",
            )
        await asyncio.sleep(pause_s)
        memory.append(await asyncio.to_thread(resident, service))
        if number % 4 == 3:
            watch.calm = None
            await asyncio.sleep(min(pause_s, calm_s))
            watch.calm = True
            await asyncio.sleep(calm_s)
    watch.calm = None
    return memory


async def _until(condition: object, complaint: str) -> None:
    assert callable(condition)
    until = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        if time.monotonic() > until:
            raise Unkept(complaint)
        await asyncio.sleep(0.02)


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


def _refused(service: KilledService) -> float:
    assert service.address is not None
    connection = http.client.HTTPConnection(*service.address, timeout=10)
    try:
        connection.request("GET", "/metrics")
        found = _REFUSED.search(connection.getresponse().read())
    finally:
        connection.close()
    return float(found[1]) if found else 0.0


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
    """Publish without the check that `reco bundle publish` makes: as a damaged disk would."""
    draft = artifacts / ".draft"
    draft.write_text(json.dumps({"bundle_id": bundle_id, "published_at": "", "history": []}))
    draft.replace(artifacts / "current.json")
