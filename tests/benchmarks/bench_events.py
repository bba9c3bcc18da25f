"""What the event log costs a request, and how fast feedback becomes durable.

    .venv/bin/python tests/benchmarks/bench_events.py

In one process, without sockets. `emit_us`: making an impression and queueing it. `request_us`: the hot route end to
end, medians of alternating rounds with the log off and on; the difference holds the log's thread, which shares the
interpreter. `append`: batches of one event from concurrent senders, each acknowledged after its sync. Prints a table to
stderr and one JSON line to stdout.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from events_at import feedback, logging_to
from factories import write_tiny_bundle
from running import ask, running, settings_for

from service.domain import Slate
from service.events import log as event_log
from service.events.schema import Impression

ROUNDS, REQUESTS = 15, 400


async def emit_us(folder: Path) -> float:
    """Microseconds to make and queue one impression."""
    slate = Slate(list(range(10)), [0.5] * 10, "personal", 10, "popular", (), (("retrieve", 0.001),))
    count = event_log.MAX_IMPRESSIONS
    best = 1.0
    for number in range(5):
        async with logging_to(folder / str(number)) as log:
            began = time.perf_counter()
            for user in range(count):
                log.emit(Impression(time.time(), "5f0c8a4e3d7b-1a", user, "b", "als", slate, 0.001))
            best = min(best, (time.perf_counter() - began) / count)
    return best * 1e6


async def request_us(artifacts: Path, folder: Path) -> dict[str, float]:
    """Median microseconds of a request to the hot route, with the log off and on."""
    async with (
        running(settings_for(artifacts)) as (off, _),
        running(settings_for(artifacts, events_dir=folder)) as (on, _),
    ):
        times: dict[str, list[float]] = {"off": [], "on": []}
        for _ in range(ROUNDS):
            for name, app in (("off", off), ("on", on)):
                await asyncio.sleep(0.1)  # what the round before left to the log's thread is written
                began = time.perf_counter()
                for _ in range(REQUESTS):
                    await ask(app, b"/reco/als/100")
                times[name].append((time.perf_counter() - began) / REQUESTS * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


async def append(folder: Path, senders: int, seconds: float = 2.0) -> dict[str, float]:
    """Acknowledged events a second, and the wait of one, milliseconds."""
    waits: list[float] = []

    async def sender(name: int) -> None:
        number = 0
        while time.perf_counter() < until:
            began = time.perf_counter()
            await log.append([feedback(f"{name}-{number}")])
            waits.append((time.perf_counter() - began) * 1000)
            number += 1

    async with logging_to(folder) as log:
        await log.append([feedback("first")])
        until = time.perf_counter() + seconds
        await asyncio.gather(*(sender(name) for name in range(senders)))
    waits.sort()
    return {
        "per_second": len(waits) / seconds,
        "p50_ms": waits[len(waits) // 2],
        "p99_ms": waits[int(len(waits) * 0.99)],
    }


async def measure(folder: Path) -> dict[str, Any]:
    """All of it."""
    write_tiny_bundle(folder / "artifacts")
    report: dict[str, Any] = {"emit_us": await emit_us(folder / "emit")}
    report["request_us"] = await request_us(folder / "artifacts", folder / "requests")
    report["append"] = {str(n): await append(folder / f"append-{n}", n) for n in (1, 16, 256)}
    return report


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="bench-events-") as name:
        report = asyncio.run(measure(Path(name)))
    requests = report["request_us"]
    print(f"emit      {report['emit_us']:8.2f} us", file=sys.stderr)
    print(
        f"request   {requests['off']:8.1f} us off, {requests['on']:.1f} us on, "
        f"{requests['on'] - requests['off']:+.1f}",
        file=sys.stderr,
    )
    for senders, found in report["append"].items():
        print(
            f"append    {found['per_second']:8.0f}/s by {senders:>3} senders, "
            f"p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms",
            file=sys.stderr,
        )
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
