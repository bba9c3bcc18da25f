"""What a service promises while it reloads, stops, loses workers and is asked by the slow, under open-loop load.

    python -m loadtest.chaos.life reload --reloads 200
    python -m loadtest.chaos.life drain --stops 100 --restarts 50
    python -m loadtest.chaos.life worker-death --kills 20
    python -m loadtest.chaos.life slow-clients --clients 2000

Each prints one JSON line and ends with 1 where a promise was not kept. Latencies are told, and judged only with
--judge-latency: they mean something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from loadtest.chaos import reloading, slow
from loadtest.chaos.asking import make_shots, on_core, steady, two_cores
from loadtest.chaos.bundles import make_vectors
from loadtest.chaos.overload import recovery
from loadtest.chaos.service import KilledService, Unkept
from loadtest.openloop.generator import Generator, Observer, Target, fast_loop
from loadtest.openloop.outcome import SLICE_S, Outcome
from loadtest.openloop.shots import Shot

BUDGET_S = 2.0
"""Generous: what is judged here is whether answers come, and from what."""


@contextlib.asynccontextmanager
async def loaded(
    address: tuple[str, int], shots: list[Shot], rate: float, observer: Observer | None = None
) -> AsyncIterator[tuple[Generator, asyncio.Task[Outcome]]]:
    """Ask at a rate while the block runs, and until the last is answered; then the task is done."""
    stop = False

    def due() -> Iterator[float]:
        chance, at = random.Random(3), 0.0  # noqa: S311 - not a secret
        while not stop:
            yield at
            at += chance.expovariate(rate)

    target = Target(*address, connections=16, most=256, patience_s=10.0)
    async with Generator(target, observer=observer) as generator:
        task = asyncio.create_task(generator.run(shots, due(), rate=rate, seconds=1, budget_s=BUDGET_S))
        try:
            yield generator, task
        finally:
            stop = True
            await task


async def drain(args: argparse.Namespace, folder: Path, shots: list[Shot]) -> dict[str, Any]:
    """Stop a service under load, again and again; then let its workers be replaced as they wear out."""
    chance, lost, answered, exits, notes = random.Random(args.seed), 0, 0, 0, list[str]()  # noqa: S311 - not a secret
    for _ in range(args.stops):
        service = _service(args, folder)
        try:
            service.start()
            assert service.address is not None
            async with loaded(service.address, shots, args.rate) as (_, task):
                await asyncio.sleep(chance.uniform(0.2, 0.6))
                await asyncio.to_thread(service.stop)
                exits += 1
        finally:
            service.close()
        outcome = task.result()
        # Who comes after the port has closed is refused; everybody who was let in is owed an answer.
        lost += outcome.lost + outcome.late + sum(outcome.faults.values()) + outcome.statuses[503]
        answered += outcome.ok
        notes += outcome.notes
    replaced, refused = 0, 0
    if args.restarts:
        service = _service(args, folder, RECO_MAX_REQUESTS=str(max(100, int(args.rate))))
        try:
            service.start()
            assert service.address is not None
            seen = set(service.workers())
            async with loaded(service.address, shots, args.rate) as (_, task):
                until = time.monotonic() + 60 + 4 * args.restarts
                while len(seen) < args.workers + args.restarts:
                    if time.monotonic() > until:
                        raise Unkept("workers were not replaced")
                    await asyncio.sleep(0.02)
                    seen |= set(service.workers())
            replaced, outcome = len(seen) - args.workers, task.result()
            service.stop()
        finally:
            service.close()
        lost += outcome.lost + outcome.late + sum(outcome.faults.values())
        refused = outcome.refused
        answered += outcome.ok
        notes += outcome.notes
    return {
        "chaos": "drain", "stops": args.stops, "clean_exits": exits, "restarts": replaced, "answered": answered,
        "lost": lost, "refused_while_restarting": refused, "examples": notes[:5],
        "kept": lost == 0 and refused == 0 and exits == args.stops and replaced >= args.restarts and answered > 0,
    }  # fmt: skip


async def worker_death(args: argparse.Namespace, folder: Path, shots: list[Shot]) -> dict[str, Any]:
    """Kill -9 workers under load: only what one was answering may fail, and the others carry on."""
    chance = random.Random(args.seed)  # noqa: S311 - not a secret
    service = _service(args, folder)
    in_flight, kills, restored = 0, list[float](), list[float]()
    try:
        service.start()
        assert service.address is not None
        async with loaded(service.address, shots, args.rate) as (generator, task):
            await asyncio.sleep(1)
            for _ in range(args.kills):
                victim = chance.choice(service.workers())
                in_flight += generator.in_flight
                kills.append(generator.now)
                began = time.monotonic()
                await asyncio.to_thread(service.kill_worker, victim)
                while len(service.workers()) < args.workers:  # noqa: ASYNC110 - another process sets no event
                    await asyncio.sleep(0.005)
                restored.append(time.monotonic() - began)
                await asyncio.sleep(3)
        outcome = task.result()
        service.stop()
    finally:
        service.close()
    failures = outcome.errors
    recoveries = []
    for at in kills:
        first = int(at / SLICE_S)
        found = recovery(outcome.sent_by_slice, outcome.good_by_slice, first, first + int(3 / SLICE_S))
        recoveries.append(3.0 if found is None else found)
    return {
        "chaos": "worker-death", "kills": args.kills, "answered": outcome.ok, "failures": failures,
        "in_flight_at_kills": in_flight, "refused": outcome.refused, "late": outcome.late,
        "worst_recovery_s": round(max(recoveries), 2), "worst_refork_s": round(max(restored), 3),
        "kept": failures <= max(in_flight, args.kills) and outcome.refused == 0 and max(recoveries) < 3,
    }  # fmt: skip


async def reload(args: argparse.Namespace, folder: Path, shots: list[Shot]) -> dict[str, Any]:
    """Publish bundles under load, every fourth of them corrupt."""
    service = _service(args, folder, RECO_RELOAD_POLL_S="0.1")
    try:
        service.start()
        assert service.address is not None
        watch = reloading.Watch()
        async with Generator(Target(*service.address, connections=16)) as generator:
            await steady(generator, shots, rate=args.rate, seconds=1, budget_s=BUDGET_S)
        async with loaded(service.address, shots, args.rate, watch.observe) as (_, task):
            memory = await reloading.publish_all(
                service, folder / "artifacts", watch, args.reloads, pause_s=args.pause_s, calm_s=args.calm_s
            )
        outcome = task.result()
        service.stop()
    finally:
        service.close()
    latencies = [watch.latency(calm=calm) for calm in (True, False)]
    p50, p99 = ([one.quantile(share) * 1e3 for one in latencies] for share in (0.5, 0.99))
    usual = [watch.usual_p99_s(calm=calm) * 1e3 for calm in (True, False)]
    grown = memory[-1] / memory[min(1, len(memory) - 1)] - 1
    return {
        "chaos": "reload", "reloads": args.reloads, "corrupt": args.reloads // 4, "answered": outcome.ok,
        "failures": outcome.errors, "lost": outcome.lost, "refused": outcome.refused, "shed": outcome.shed,
        "late": outcome.late, "mixed": watch.mixed, "bundles_seen": len(watch.bundles),
        "connections": watch.connections, "p50_ms": [round(one, 3) for one in p50],
        "p99_ms_steady": round(p99[0], 3), "p99_ms_reloading": round(p99[1], 3),
        "usual_p99_ms": [round(one, 3) for one in usual], "rss_growth_after_10": round(grown, 4),
        "rss_mib": [round(one / 2**20, 1) for one in (memory[0], memory[-1])], "examples": outcome.notes[:5],
        "kept": outcome.errors == 0 and watch.mixed == 0 and len(watch.bundles) >= 2
        and (not args.judge_latency or (p99[1] <= 1.1 * p99[0] and grown <= 0.02)),
    }  # fmt: skip


async def slow_clients(args: argparse.Namespace, folder: Path, shots: list[Shot]) -> dict[str, Any]:
    """Let many clients send their heads a byte at a time beside good load."""
    service = _service(args, folder)
    try:
        service.start()
        assert service.address is not None
        async with Generator(Target(*service.address, connections=16)) as generator:
            await steady(generator, shots, rate=args.rate, seconds=1, budget_s=BUDGET_S)
            calm = await steady(generator, shots, rate=args.rate, seconds=args.steady_s, budget_s=BUDGET_S)
        before = reloading.resident(service)
        besiegers = await slow.started(service.address, args.clients)
        async with loaded(service.address, shots, args.rate) as (_, task):
            found = await slow.besiege(besiegers, lambda: reloading.resident(service))
        outcome = task.result()
        service.stop()
    finally:
        service.close()
    p99 = [one.latency.quantile(0.99) * 1e3 for one in (calm, outcome)]
    grown_mib = (found.most_resident - before) / 2**20
    return {
        "chaos": "slow-clients", "clients": args.clients, "answered": outcome.ok, "failures": outcome.errors,
        "told_408": found.told, "dropped": found.dropped, "longest_s": round(found.longest_s, 2),
        "rss_growth_mib": round(grown_mib, 1), "p99_ms_steady": round(p99[0], 3), "p99_ms_besieged": round(p99[1], 3),
        "kept": outcome.errors == 0 and found.dropped == args.clients and found.longest_s <= 10 and grown_mib <= 50
        and (not args.judge_latency or p99[1] <= 1.1 * p99[0]),
    }  # fmt: skip


def _service(args: argparse.Namespace, folder: Path, **settings: str) -> KilledService:
    common = {"RECO_BUDGET_MS": "2000", "RECO_DRAIN_WAIT_S": "0.1", **settings}
    return KilledService(folder / "artifacts", folder, args.workers, common)


_RUNS = {"reload": reload, "drain": drain, "worker-death": worker_death, "slow-clients": slow_clients}


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="make chaos-…", description=__doc__)
    parser.add_argument("what", choices=list(_RUNS))
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second (default: 300)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--items", type=int, default=16_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steady-s", type=float, default=10.0, help="of calm load, to compare with")
    parser.add_argument(
        "--judge-latency", action="store_true", help="hold p99 and memory to the promise, too"
    )
    parser.add_argument("--reloads", type=int, default=200, help="reload: how many, each fourth corrupt")
    parser.add_argument("--pause-s", type=float, default=1.0, help="reload: between two")
    parser.add_argument(
        "--calm-s", type=float, default=4.0, help="reload: of calm load after every fourth, to compare with"
    )
    parser.add_argument("--stops", type=int, default=100, help="drain: SIGTERMs")
    parser.add_argument("--restarts", type=int, default=50, help="drain: workers replaced")
    parser.add_argument("--kills", type=int, default=20, help="worker-death")
    parser.add_argument("--clients", type=int, default=2000, help="slow-clients")
    args = parser.parse_args(argv)
    cores = two_cores()
    try:
        with tempfile.TemporaryDirectory(prefix="reco-chaos-") as name:
            folder = Path(name)
            artifacts = folder / "artifacts"
            make_vectors(folder, artifacts, users=args.users, items=args.items)
            if args.what == "reload":
                make_vectors(folder, artifacts, users=args.users, items=args.items, seed=2, publish=False)
            shots = make_shots(5_000, users=args.users)
            # Workers go where the system puts them; the generator keeps to one core.
            core = cores[1] if cores and args.workers == 1 else None
            with on_core(core), asyncio.Runner(loop_factory=fast_loop) as runner:
                document = runner.run(_RUNS[args.what](args, folder, shots))
    except Unkept as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    print(json.dumps(document))
    return 0 if document["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
