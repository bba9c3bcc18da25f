"""Kill a service again and again while events are sent to it: nothing that it acknowledged may be lost.

    python -m loadtest.chaos.events --kills 1000

Senders post batches and send one again, as it was, until it is acknowledged. Meanwhile workers are killed, and every
tenth time the whole service, which is then started anew. In the end `reco events` reads the log: every acknowledged
event must be there as it was sent, none may be corrupt, and in the export each is there once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.chaos.service import PATIENCE_S, KilledService, Unkept, make_artifacts, reco

USERS, ITEMS = 300, 100
_MOST_EVENTS = 20
_TYPES = ("view", "click", "purchase", "rating", "last")


def event(sender: int, number: int) -> dict[str, Any]:
    """Make an event; who has its id can make it again."""
    return {
        "event_id": f"{sender}-{number}",
        "type": _TYPES[number % len(_TYPES)],
        "user_id": number % USERS,
        "item_id": (number * 7 + sender) % ITEMS,
        "timestamp_ms": 1_700_000_000_000 + number,
        "value": number / 8,
        "request_id": None if number % 3 else f"r-{number}",
    }


@dataclass(slots=True)
class Sender:
    """One client. Its events are numbered; `acknowledged` are those below."""

    name: int
    service: KilledService
    stop: threading.Event
    acknowledged: int = 0
    batches: int = 0
    resent: int = 0
    refused: int = 0
    fault: str | None = None
    _connection: http.client.HTTPConnection | None = None
    _address: tuple[str, int] | None = None

    def run(self) -> None:
        """Send until told to stop; the batch under way is sent to its end."""
        try:
            self._send()
        finally:
            self._hang_up()

    def _send(self) -> None:
        chance = random.Random(self.name)  # noqa: S311 - not a secret
        while not self.stop.is_set() and self.fault is None:
            first = self.acknowledged
            last = first + chance.randint(1, _MOST_EVENTS)
            body = json.dumps({"events": [event(self.name, number) for number in range(first, last)]})
            give_up = time.monotonic() + PATIENCE_S
            while not self._post(body.encode(), last - first):
                self.resent += self.service.address is not None
                if time.monotonic() > give_up:
                    self.fault = "a batch was not acknowledged in time"
                    return
                time.sleep(0.005)
            self.acknowledged, self.batches = last, self.batches + 1
            if chance.random() < 0.2:  # something must be shown, too
                self._ask("GET", f"/reco/default/{chance.randrange(USERS)}", b"")

    def _post(self, body: bytes, count: int) -> bool:
        answer = self._ask("POST", "/v1/events", body)
        if answer is None:
            return False
        status, text = answer
        if status == 503:
            self.refused += 1
            return False
        if status != 200 or sum(json.loads(text).values()) != count:
            self.fault = f"status {status}: {text.decode(errors='replace')}"
        return True

    def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        """One request; None where no whole answer came."""
        address = self.service.address
        if address is None:
            return None
        if self._connection is None or self._address != address:
            self._hang_up()
            self._connection = http.client.HTTPConnection(*address, timeout=10)
            self._address = address
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return None

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(slots=True)
class Report:
    """What was done, and what was found."""

    kills: int = 0
    restarts: int = 0
    acknowledged: int = 0
    resent_batches: int = 0
    refused_batches: int = 0
    on_disk: int = 0
    impressions: int = 0
    lost: int = 0
    altered: int = 0
    corrupt: int = 0
    duplicates_on_disk: int = 0
    duplicates_exported: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return self.acknowledged > 0 and not (
            self.lost or self.altered or self.corrupt or self.duplicates_exported
        )


def run(artifacts: Path, folder: Path, *, kills: int, senders: int, workers: int, seed: int) -> Report:
    """Do it. Raises Unkept where the service can't be run or answers what it must not."""
    began = time.perf_counter()
    events = folder / "events"
    # Small segments, so that there is a rotation for many kills to fall into.
    settings = {"RECO_EVENTS_DIR": str(events), "RECO_EVENTS_SEGMENT_MB": "0.05"}
    service = KilledService(artifacts, folder, workers, settings)
    report = Report()
    try:
        service.start()
        with _sending(service, senders) as clients:
            _kill(service, events, clients, report, kills, random.Random(seed))  # noqa: S311 - not a secret
        service.stop()
    finally:
        service.close()
    for client in clients:
        report.acknowledged += client.acknowledged
        report.resent_batches += client.resent
        report.refused_batches += client.refused
    _examine(
        events, folder / "export.jsonl", {client.name: client.acknowledged for client in clients}, report
    )
    report.seconds = round(time.perf_counter() - began, 1)
    return report


@contextlib.contextmanager
def _sending(service: KilledService, count: int) -> Iterator[list[Sender]]:
    stop = threading.Event()
    clients = [Sender(name, service, stop) for name in range(count)]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    for client in clients:
        if client.fault is not None:
            raise Unkept(client.fault)


def _kill(
    service: KilledService,
    events: Path,
    clients: list[Sender],
    report: Report,
    kills: int,
    chance: random.Random,
) -> None:
    for number in range(1, kills + 1):
        _await_progress(clients, chance.randint(1, 12))
        victim = service.worker_with(events, chance.randrange(1 << 16))
        time.sleep(chance.uniform(0, 0.02))  # at any moment of what a worker does
        if number % 10 == 0:
            service.kill_all()
            service.start()
            report.restarts += 1
        else:
            service.kill_worker(victim)
        report.kills += 1
        if sys.stderr.isatty():
            print(f"\r{number} of {kills} kills", end="", file=sys.stderr, flush=True)
    _await_progress(clients, 1)


def _await_progress(clients: list[Sender], batches: int) -> None:
    goal = sum(client.batches for client in clients) + batches
    until = time.monotonic() + PATIENCE_S
    while sum(client.batches for client in clients) < goal:
        faults = [client.fault for client in clients if client.fault is not None]
        if faults or time.monotonic() > until:
            raise Unkept(faults[0] if faults else "no events were acknowledged any more")
        time.sleep(0.001)


def _examine(events: Path, out: Path, acknowledged: dict[int, int], report: Report) -> None:
    """Read the log by the command line and compare. `acknowledged`: events of each sender."""
    verified = reco("events", "verify", "--events", events)
    if verified.returncode not in (0, 3):
        raise Unkept(verified.stderr.decode())
    counts = json.loads(verified.stdout)
    report.corrupt = len(counts["corrupt"])
    report.duplicates_on_disk = counts["duplicates"]
    exported = reco("events", "export", "--events", events, "--out", out)
    if exported.returncode not in (0, 3):
        raise Unkept(exported.stderr.decode())
    found: set[str] = set()
    with out.open("rb") as lines:
        for line in lines:
            record = json.loads(line)
            if "items" in record:
                report.impressions += 1
                continue
            report.on_disk += 1
            report.duplicates_exported += record["event_id"] in found
            found.add(record["event_id"])
            sender, number = map(int, record["event_id"].split("-"))
            record.pop("received_ms")
            if record != event(sender, number):
                report.altered += 1
                report.examples.append(f"altered: {record}")
    for sender, count in acknowledged.items():
        missing = [f"{sender}-{number}" for number in range(count) if f"{sender}-{number}" not in found]
        report.lost += len(missing)
        report.examples += [f"lost: {name}" for name in missing[:5]]


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: a JSON line; exit code 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(
        description="Kill a service under event load; nothing acknowledged may be lost."
    )
    parser.add_argument("--kills", type=int, default=1000, help="default: 1000")
    parser.add_argument("--senders", type=int, default=4, help="clients that send (default: 4)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the service (default: 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, help="integer ids; default: a small bundle made for this")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="reco-chaos-") as name:
        folder = Path(name)
        try:
            report = run(
                args.artifacts.resolve() if args.artifacts else make_artifacts(folder),
                folder,
                kills=args.kills,
                senders=args.senders,
                workers=args.workers,
                seed=args.seed,
            )
        except Unkept as error:
            print(f"chaos: {error}", file=sys.stderr)
            return 1
    document = {name: getattr(report, name) for name in Report.__slots__}
    print(json.dumps({**document, "kept": report.kept}))
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
