"""The same services at rates they can carry: latency from the instant a request was due, side by side with raw ASGI."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.bench.errors import BenchError
from loadtest.bench.ladder import BASE
from loadtest.bench.servers import pinned
from loadtest.bench.wrk import Target
from loadtest.openloop.generator import Generator, fast_loop
from loadtest.openloop.generator import Target as Service
from loadtest.openloop.shots import Shot, due_times
from loadtest.scenario import Request

RATE = 2_000.0
SHARES = (0.5, 0.8)
"""Of what a rung answered in the closed loop."""
CONNECTIONS = 64
_OWN_SHARE = 0.2
"""A p99 of which the generator's own lateness makes more than this is marked as its, not the service's."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One rung to ask: `capacity`, requests a second, of the closed loop."""

    port: int
    target: Target
    capacity: float


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Microseconds of one stretch."""

    p50: float
    p99: float
    lag_p99: float


def measure_open(
    rungs: Mapping[str, Measured], token: str, *, rounds: int, seconds: float, core: int | None
) -> dict[str, Any]:
    """Ask each rung at `RATE` and at shares of its capacity, turn by turn. Raises BenchError for wrong answers.

    Returns, by load and rung, medians over the rounds; `p99_ratio` is to raw ASGI's p99 of the same load and round. If
    requests were given up or refused in a round, a load has its rate and nothing else: it was not carried.
    """
    shots = {name: _shots(rung.target, token) for name, rung in rungs.items()}
    found: dict[str, Any] = {}
    with pinned(core), asyncio.Runner(loop_factory=fast_loop) as runner:
        for label, share in ((f"{RATE:.0f}/s", None), *((f"{share:.0%}", share) for share in SHARES)):
            turns: dict[str, list[_Stretch | None]] = {name: [] for name in rungs}
            rates = {name: RATE if share is None else share * rung.capacity for name, rung in rungs.items()}
            for turn in range(rounds):
                for name, rung in rungs.items():
                    turns[name].append(
                        runner.run(_stretch(rung.port, shots[name], rates[name], seconds, turn, name))
                    )
            found[label] = {
                name: _summary(rates[name], stretches, turns[BASE]) for name, stretches in turns.items()
            }
    return found


def _shots(target: Target, token: str) -> list[Shot]:
    if target.method != "GET":
        raise BenchError("the open loop asks by GET only")
    shots = []
    for path in target.lines.read_text().split():
        model, user = path.split("/")[2:4]
        raw = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
        shots.append(Shot(Request(model, int(user), cold=False, k=10), raw.encode()))
    return shots


async def _stretch(
    port: int, shots: list[Shot], rate: float, seconds: float, seed: int, name: str
) -> _Stretch | None:
    """None where requests were given up or refused. Raises BenchError for a wrong answer."""
    async with Generator(Service("127.0.0.1", port, connections=CONNECTIONS)) as generator:
        due = due_times("poisson", rate, seconds, seed)
        outcome = await generator.run(shots, due, rate=rate, seconds=seconds, budget_s=1.0)
    lag = outcome.lag.quantile(0.99)
    if outcome.faults and name != BASE:
        raise BenchError(f"{name} at {rate:.0f}/s: {dict(outcome.faults)}")
    if outcome.statuses[200] != outcome.sent:
        return None
    return _Stretch(outcome.latency.quantile(0.5) * 1e6, outcome.latency.quantile(0.99) * 1e6, lag * 1e6)


def _summary(rate: float, turns: list[_Stretch | None], base: list[_Stretch | None]) -> dict[str, Any]:
    stretches = [one for one in turns if one is not None]
    if len(stretches) < len(turns):
        return {"rate": round(rate)}
    p99, lag = (statistics.median(getattr(one, name) for one in stretches) for name in ("p99", "lag_p99"))
    found = {
        "rate": round(rate), "p50_us": round(statistics.median(one.p50 for one in stretches)), "p99_us": round(p99),
        "generator_late_p99_us": round(lag), "generator_s_own": lag > _OWN_SHARE * p99,
    }  # fmt: skip
    ratios = [own.p99 / raw.p99 for own, raw in zip(stretches, base, strict=True) if raw is not None]
    if len(ratios) == len(base):
        found["p99_ratio"] = round(statistics.median(ratios), 2)
        found["p99_ratio_least"], found["p99_ratio_most"] = round(min(ratios), 2), round(max(ratios), 2)
    return found
