"""The load that chaos harnesses put on a service, and the cores that both sides keep to."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence

from loadtest.chaos.bundles import MODEL
from loadtest.openloop.generator import Generator
from loadtest.openloop.outcome import Outcome
from loadtest.openloop.shots import Shot, draw_shots, due_times
from loadtest.scenario import Scenario


def make_shots(count: int, *, users: int, model: str = MODEL, token: str = "", seed: int = 1) -> list[Shot]:
    """Draw requests for warm users, all as likely: no cache helps, no stranger is cheap."""
    options = argparse.Namespace(
        ids=f"0..{users - 1}", zipf=0.0, cold=0.0, think="none", k=10, models=model, seed=seed, token=token
    )
    return draw_shots(Scenario(options), count, "chaos")


async def steady(
    generator: Generator,
    shots: Sequence[Shot],
    *,
    rate: float,
    seconds: float,
    budget_s: float,
    seed: int = 1,
) -> Outcome:
    """One stretch of Poisson arrivals."""
    due = due_times("poisson", rate, seconds, seed)
    return await generator.run(shots, due, rate=rate, seconds=seconds, budget_s=budget_s)


def available() -> frozenset[int]:
    """Cores that this process may run on; none where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def two_cores() -> tuple[int, int] | None:
    """Core of the service and core of the generator; None where there is one only, or none can be chosen."""
    found = sorted(available())
    return (found[0], found[1]) if len(found) > 1 else None


def on_core(core: int | None) -> contextlib.AbstractContextManager[None]:
    """Keep this thread, and processes started within, to one core; None: to any."""
    return on_cores(frozenset() if core is None else frozenset({core}))


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Keep this thread, and processes started within, to these cores; none: nothing changes."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
