"""Ask for 2, 5 and 10 times what a service can answer: how much is still answered in time, and how soon it recovers.

    python -m loadtest.chaos.overload                # the worker alone
    python -m loadtest.chaos.overload --edge         # behind the shipped nginx

One worker on one core, the generator on another, nginx on any. First the peak: the most right answers a second within
the budget, at loads around the capacity of the worker alone. Then each multiple of it for some seconds, and half of it
right after, in one stretch. Goodput counts answers of status 200, whole and right, within the budget from the instant
they were due.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.chaos.asking import available, make_shots, on_core, on_cores, steady, two_cores
from loadtest.chaos.bundles import make_vectors
from loadtest.chaos.edge import edge
from loadtest.chaos.service import KilledService, Unkept
from loadtest.openloop.connection import Answer, Flight
from loadtest.openloop.generator import Generator, Target, fast_loop
from loadtest.openloop.histogram import Histogram
from loadtest.openloop.outcome import SLICE_S
from loadtest.openloop.shots import Shot, due_times

GOALS = {False: {2.0: 0.95, 5.0: 0.88, 10.0: 0.80}, True: {2.0: 0.97, 5.0: 0.95, 10.0: 0.95}}
"""Behind the edge or not -> times the peak -> share of it that must still be answered in time."""
RECOVERY_S = 2.0
_RESTED_S = 3.0
_FULL = 0.98


@dataclass(frozen=True, slots=True)
class Overload:
    """One multiple of the peak. `accepted_p99_s`: of answers of status 200 while it lasted. `recovery_s`: from its end
    until the load after it is answered in full, and stays so; None: it was not."""

    times: float
    goodput: float
    personal: float
    share: float
    accepted_p99_s: float
    sent: int
    shed: int
    lost: int
    late: int
    recovery_s: float | None
    generator_lag_p99_s: float

    def kept(self, goal: float, budget_s: float) -> bool:
        """Whether the promise was kept."""
        recovered = self.recovery_s is not None and self.recovery_s < RECOVERY_S
        return self.share >= goal and self.accepted_p99_s < budget_s and recovered


async def peak_of(
    generator: Generator, closed: Generator, shots: list[Shot], seconds: float, budget_s: float
) -> float:
    """The most right answers in time, a second."""
    probe = await closed.run(shots, [0.0] * 300, rate=0, seconds=1, budget_s=60)
    rough = probe.ok / max(probe.latency.greatest / 1e6, 1e-6)
    best = 0.0
    for share in (0.7, 0.8, 0.9, 1.0):
        outcome = await steady(generator, shots, rate=share * rough, seconds=seconds, budget_s=budget_s)
        best = max(best, outcome.goodput)
    return best


async def overload(
    address: tuple[str, int], shots: list[Shot], *, times: float, peak: float, seconds: float, budget_s: float
) -> Overload:
    """Ask for a multiple of the peak, then for half of it."""
    accepted = Histogram()

    def observe(flight: Flight, answer: Answer, latency: float) -> None:
        if answer.status == 200 and flight.due < seconds:
            accepted.record(latency)

    due = [*due_times("poisson", times * peak, seconds, 7)]
    due += [seconds + at for at in due_times("poisson", peak / 2, _RESTED_S, 8)]
    async with Generator(Target(*address, connections=64), observer=observe) as generator:
        outcome = await generator.run(
            shots, due, rate=times * peak, seconds=seconds + _RESTED_S, budget_s=budget_s
        )
    last = int(seconds / SLICE_S)
    good = sum(count for at, count in outcome.good_by_slice.items() if at < last)
    personal = outcome.personal_by_slice
    goodput = good / seconds
    return Overload(
        times, round(goodput, 1), round(sum(n for at, n in personal.items() if at < last) / seconds, 1),
        round(goodput / peak, 4), accepted.quantile(0.99), outcome.sent, outcome.shed, outcome.lost, outcome.late,
        recovery(outcome.sent_by_slice, outcome.good_by_slice, last, last + int(_RESTED_S / SLICE_S)),
        outcome.lag.quantile(0.99),
    )  # fmt: skip


def recovery(sent: dict[int, int], good: dict[int, int], first: int, end: int) -> float | None:
    """Seconds from a slice until the load is answered in full; None where it is not before the last second."""
    for at in range(end - 1, first - 1, -1):
        if good.get(at, 0) < _FULL * sent.get(at, 0) - 1:
            recovered = at + 1
            break
    else:
        recovered = first
    return (recovered - first) * SLICE_S if recovered < end else None


async def find_peak(args: argparse.Namespace, address: tuple[str, int], shots: list[Shot]) -> float:
    """Warm a service up and find its peak. Raises Unkept where it has none."""
    budget_s = args.budget_ms / 1e3
    async with (
        Generator(Target(*address, connections=64)) as generator,
        Generator(Target(*address, connections=8, most=8, patience_s=60)) as closed,
    ):
        await steady(generator, shots, rate=50, seconds=1, budget_s=budget_s)
        peak = await peak_of(generator, closed, shots, args.seconds, budget_s)
    if peak < 1:
        raise Unkept("the service answers nothing in time, even unhurried")
    return peak


async def measure(
    args: argparse.Namespace, address: tuple[str, int], shots: list[Shot], peak: float
) -> dict[str, Any]:
    """Every multiple in turn."""
    budget_s = args.budget_ms / 1e3
    found = []
    for times in args.times:
        found.append(
            await overload(address, shots, times=times, peak=peak, seconds=args.seconds, budget_s=budget_s)
        )
        _say(found[-1], peak)
    goals = GOALS[args.edge]
    return {
        "chaos": "overload", "edge": args.edge, "at_once": args.at_once, "admission": not args.without_admission,
        "items": args.items, "dim": args.dim, "budget_ms": args.budget_ms, "peak": round(peak, 1),
        "results": [
            {name: getattr(one, name) for name in Overload.__slots__} | {"goal": goals.get(one.times)} for one in found
        ],
        "kept": all(one.kept(goals.get(one.times, 0.0), budget_s) for one in found),
    }  # fmt: skip


def _say(one: Overload, peak: float) -> None:
    print(
        f"{one.times:4g} x {peak:,.0f}/s: {one.share:6.1%} of the peak in time ({one.personal:,.0f}/s personal), "
        f"accepted p99 {one.accepted_p99_s * 1e3:.1f} ms, shed {one.shed}, lost {one.lost}, "
        f"recovery {one.recovery_s} s, "
        f"generator late p99 {one.generator_lag_p99_s * 1e3:.1f} ms",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run from the command line: a JSON line; exit code 1 where the promise was not kept."""
    parser = argparse.ArgumentParser(prog="make chaos-overload", description=__doc__)
    parser.add_argument(
        "--times", type=float, nargs="+", default=[2.0, 5.0, 10.0], help="multiples of the peak"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each stretch (default: 6)")
    parser.add_argument("--items", type=int, default=150_000, help="catalogue: what an answer costs")
    parser.add_argument(
        "--dim", type=int, default=256, help="of the vectors: wide ones of like norms are dear to scan"
    )
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--budget-ms", type=float, default=50.0)
    parser.add_argument("--edge", action="store_true", help="behind deploy/nginx/nginx.conf")
    parser.add_argument(
        "--at-once", type=int, help="with --edge: requests at the service (default: by the peak)"
    )
    parser.add_argument(
        "--without-admission", action="store_true", help="for comparison: answer all, however late"
    )
    args = parser.parse_args(argv)
    cores, every = two_cores(), available()
    server_core, own_core = cores or (None, None)
    try:
        with tempfile.TemporaryDirectory(prefix="reco-chaos-") as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            make_vectors(folder, folder / "artifacts", users=args.users, items=args.items, dim=args.dim)
            settings = {
                "RECO_BUDGET_MS": str(args.budget_ms),
                "RECO_ADMISSION": "off" if args.without_admission else "on",
                "RECO_TRUSTED_PROXIES": "127.0.0.1",
                "RECO_RESPONSE_CACHE": "0",
            }
            service = KilledService(folder / "artifacts", folder, 1, settings)
            stack.callback(service.close)
            with on_core(server_core):
                service.start()
            assert service.address is not None
            stack.enter_context(on_core(own_core))
            address = service.address
            shots = make_shots(20_000, users=args.users)
            with asyncio.Runner(loop_factory=fast_loop) as runner:
                peak = runner.run(find_peak(args, address, shots))
                if args.edge:
                    # As docs/operations.md says: half of the budget, in requests.
                    args.at_once = args.at_once or max(4, round(peak * args.budget_ms / 1e3 / 2))
                    with on_cores(every):
                        address = stack.enter_context(edge(folder, address, at_once=args.at_once))
                document = runner.run(measure(args, address, shots, peak))
            service.stop()
    except Unkept as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    print(json.dumps(document))
    return 0 if document["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
