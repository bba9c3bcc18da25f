"""The search for the highest rate, on services that are functions of the rate."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from loadtest.openloop.outcome import Outcome
from loadtest.openloop.page import page
from loadtest.openloop.search import Found, Step, breaches_of, find_highest
from loadtest.scenario_file import ScenarioFile, Slo, read_scenario

ROOT = Path(__file__).resolve().parents[3]


def scenario(tmp_path: Path, text: str = "") -> ScenarioFile:
    path = tmp_path / "made.toml"
    path.write_text(text)
    return read_scenario(path)


def outcome(rate: float, p99_s: float = 0.001, *, lag_s: float = 0.0, ok: int = 100) -> Outcome:
    made = Outcome(rate, 1.0, 0.05, sent=100, statuses=Counter({200: ok, 503: 100 - ok}))
    for _ in range(100):
        made.latency.record(p99_s)
        made.lag.record(lag_s)
    return made


async def found_at(capacity: float, file: ScenarioFile, *, hiccup: int = -1) -> tuple[Found, list[Step]]:
    """Search on a service that is fast up to its capacity. `hiccup`: the number of a run that is slow anyway."""
    steps: list[Step] = []
    runs = 0

    async def run(rate: float) -> Outcome:
        nonlocal runs
        runs += 1
        return outcome(rate, 0.001 if rate <= capacity and runs != hiccup else 0.2)

    return await find_highest(run, file, steps.append), steps


@pytest.mark.parametrize("capacity", [50, 61, 777, 12_345, 19_999])
@pytest.mark.parametrize("hiccup", [-1, 1, 3])
async def test_the_capacity_is_found_to_the_precision_in_spite_of_a_hiccup(
    tmp_path: Path, capacity: float, hiccup: int
) -> None:
    found, steps = await found_at(capacity, scenario(tmp_path), hiccup=hiccup)
    assert found.highest <= capacity < found.highest * 1.06 or found.highest * 2 > 20_000
    assert found.steps == tuple(steps)
    assert found.declared_held is None


async def test_a_service_too_slow_for_the_least_rate_holds_none(tmp_path: Path) -> None:
    found, _ = await found_at(10, scenario(tmp_path))
    assert found.highest == 0


@pytest.mark.parametrize(("capacity", "held"), [(1000, True), (400, False), (20, False)])
async def test_a_declared_rate_is_asked_first(tmp_path: Path, capacity: float, held: bool) -> None:
    found, steps = await found_at(capacity, scenario(tmp_path, "[slo]\nrate = 500"))
    assert steps[0].outcome.rate == 500
    assert found.declared_held is held
    assert (found.highest > 0) == (capacity >= 50)
    assert found.highest <= capacity < max(found.highest * 1.06, 50)


async def test_a_late_generator_is_named(tmp_path: Path) -> None:
    async def run(rate: float) -> Outcome:
        return outcome(rate, 0.2, lag_s=0.1) if rate > 300 else outcome(rate)

    found = await find_highest(run, scenario(tmp_path), lambda _: None)
    assert found.generator_bound


def test_each_part_of_the_objective_can_break() -> None:
    slo = Slo(p99_ms=50, fallback_share=0.01)
    degraded = dataclasses.replace(outcome(1), degraded=2)
    assert breaches_of(outcome(1), slo) == ()
    assert breaches_of(outcome(1, 0.06), slo)[0].startswith("p99 6")
    assert breaches_of(degraded, slo) == ("fallback 2.0%",)
    assert breaches_of(outcome(1, ok=99), slo) == ("1 errors",)
    assert "no right answer" in breaches_of(outcome(1, ok=0), slo)


async def test_the_page_shows_every_step(tmp_path: Path) -> None:
    file = scenario(tmp_path)
    found, steps = await found_at(777, file)
    shown = page(file, "http://x:1/<", found)
    assert shown.count("<tr") == len(steps) + 1
    assert shown.count("<polyline") == 3
    assert "http://x:1/&lt;" in shown


@pytest.mark.parametrize(
    "path", sorted((ROOT / "loadtest" / "scenarios").glob("*.toml")), ids=lambda p: p.stem
)
def test_the_scenarios_of_the_tree_can_be_read(path: Path) -> None:
    assert read_scenario(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[who]", r"no table \[who\]"),
        ("[users]\nid = 1", r"\[users\] has no key 'id'"),
        ("[users]\nids = 1", r"\[users\] ids: str expected"),
        ("[requests]\nk = true", r"k: int expected"),
        ("[arrivals]\nreuse = 1", r"reuse: bool expected"),
        ('[arrivals]\nkind = "bursts"', "one of poisson, constant"),
        ("[search]\nleast = 0", "must rise from above 0"),
        ("[slo]\nfallback_share = 2", "within 0..1"),
        ("users = 3", "is no table"),
        ("[", "made.toml"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scenario(tmp_path, text)
