"""The highest rate at which a service keeps its objective: double until it breaks, then bisect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtest.openloop.generator import Generator, Target
from loadtest.openloop.outcome import Outcome
from loadtest.openloop.shots import draw_shots, due_times
from loadtest.scenario import Scenario
from loadtest.scenario_file import ScenarioFile, Slo

_MOST_SHOTS = 50_000
_LAG_SHARE = 0.2
"""A generator whose own p99 lateness is more of the budget than this has not measured the service."""


@dataclass(frozen=True, slots=True)
class Step:
    """One stretch at one rate. `breaches`: what of the objective did not hold; empty where all did."""

    outcome: Outcome
    breaches: tuple[str, ...]
    generator_late: bool


@dataclass(frozen=True, slots=True)
class Found:
    """`highest`: rate of the best step that held the objective; 0.0 where none did. `declared_held`: whether the
    rate that the scenario declares was carried; None where it declares none. `generator_bound`: at the lowest rate
    above `highest` the generator itself was late, so that the service may well do more."""

    highest: float
    steps: tuple[Step, ...]
    declared_held: bool | None
    generator_bound: bool


def breaches_of(outcome: Outcome, slo: Slo) -> tuple[str, ...]:
    """What of the objective does not hold."""
    said = []
    p99_ms = outcome.latency.quantile(0.99) * 1e3
    if not outcome.ok:
        said.append("no right answer")
    if p99_ms > slo.p99_ms:
        said.append(f"p99 {p99_ms:.1f} ms")
    if outcome.fallback_share > slo.fallback_share:
        said.append(f"fallback {outcome.fallback_share:.1%}")
    if outcome.errors:
        said.append(f"{outcome.errors} errors")
    return tuple(said)


async def find_highest(
    run: Callable[[float], Awaitable[Outcome]], file: ScenarioFile, say: Callable[[Step], None]
) -> Found:
    """Search. `run`: one stretch at a rate. A breach counts when it shows twice: one may be a neighbour's."""
    search, slo = file.search, file.slo
    steps: list[Step] = []

    async def holds(rate: float) -> bool:
        for _ in range(2):
            outcome = await run(rate)
            lag_ms = outcome.lag.quantile(0.99) * 1e3
            step = Step(outcome, breaches_of(outcome, slo), lag_ms > _LAG_SHARE * slo.p99_ms)
            steps.append(step)
            say(step)
            if not step.breaches:
                return True
        return False

    declared = await holds(slo.rate) if slo.rate else None
    good, bad = (slo.rate, 0.0) if declared else (0.0, slo.rate)
    rate = good * 2 if good else search.least
    while not bad and rate <= search.most:
        if await holds(rate):
            good, rate = rate, rate * 2
        else:
            bad = rate
    if bad and not good and bad > search.least and await holds(search.least):
        good = search.least
    while bad and good and bad / good > 1 + search.precision:
        middle = (good * bad) ** 0.5
        if await holds(middle):
            good = middle
        else:
            bad = middle
    broken = [step for step in steps if step.breaches and step.outcome.rate > good]
    nearest = min(broken, key=lambda step: step.outcome.rate, default=None)
    return Found(good, tuple(steps), declared, nearest is not None and nearest.generator_late)


async def run_scenario(file: ScenarioFile, url: str, token: str, say: Callable[[Step], None]) -> Found:
    """Find the highest rate of a service at a URL. Raises ValueError for what makes no sense, OSError if it is away."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"--url {url}: http://host:port is wanted")
    host, port = parts.hostname, parts.port or 80
    scenario = Scenario(file.options(token))
    arrivals, budget_s = file.arrivals, file.slo.p99_ms / 1e3
    target = Target(
        host, port, arrivals.connections, arrivals.most_connections, arrivals.reuse, arrivals.patience_s
    )
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    number = 0
    async with Generator(target) as generator:

        async def run(rate: float) -> Outcome:
            nonlocal number
            number += 1
            seconds = file.search.seconds
            count = max(1, min(int(rate * seconds), _MOST_SHOTS))
            shots = draw_shots(scenario, count, f"{host}:{port}", close=not arrivals.reuse)
            due = due_times(arrivals.kind, rate, seconds, file.users.seed + number)
            return await generator.run(shots, due, rate=rate, seconds=seconds, budget_s=budget_s)

        await run(min(file.search.least, 100.0))  # connections, caches and estimates warm up uncounted
        return await find_highest(run, file, say)
