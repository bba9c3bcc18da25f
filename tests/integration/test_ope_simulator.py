"""Off-policy evaluation against the simulated audience, whose truth is enumerated; tests/benchmarks/bench_ope.py has
more runs, questions and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from open_sessions import Case, World, slates_of
from scipy import stats

from models.analysis.ope import Evaluation
from service.domain import Deadline, Exploration, Plan, Query
from service.recommender.pipeline import recommend

RUNS, LISTENERS = 10, 300
BY_CHANCE = 1e-4
SOFTMAX = Plan("als", 100, Exploration("softmax", 1.0))
COOLER = Plan("als", 100, Exploration("softmax", 0.4))
CASES = (
    Case("no exploration", SOFTMAX, Plan("als", 100)),
    Case("cooler softmax", SOFTMAX, COOLER),
    Case(
        "slates of 2",
        Plan("als", 8, Exploration("epsilon", 0.8)),
        Plan("als", 8, Exploration("epsilon", 0.2)),
        2,
        "cascade",
    ),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), population=300)


def covering(runs: list[Evaluation], name: str, truth: float) -> int:
    found = [one for run in runs for one in (run.logged, *run.estimates) if one.name == name]
    assert len(found) == len(runs)
    return sum(one.lower <= truth <= one.upper for one in found)


@pytest.fixture(scope="module")
def runs_of(world: World) -> Callable[[Case], list[Evaluation]]:
    return cache(lambda case: [world.evaluated(case, LISTENERS, seed) for seed in range(RUNS)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_intervals_hold_what_the_target_earns(
    world: World, runs_of: Callable[[Case], list[Evaluation]], case: Case
) -> None:
    truth = world.truth(case.target, case.k)
    for name in ("IPS", "SNIPS", "DR"):
        covered = covering(runs_of(case), name, truth)
        assert stats.binom.cdf(covered, RUNS, 0.95) > BY_CHANCE, (name, covered)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_standard_errors_are_how_far_estimates_lie_from_the_truth(
    world: World, runs_of: Callable[[Case], list[Evaluation]], case: Case
) -> None:
    truth = world.truth(case.target, case.k)
    for name in ("IPS", "SNIPS", "DR"):
        found = [one for run in runs_of(case) for one in run.estimates if one.name == name]
        squares = sum(((one.value - truth) / one.standard_error) ** 2 for one in found)
        assert BY_CHANCE < stats.chi2.cdf(squares, RUNS) < 1 - BY_CHANCE, (name, squares)


def test_what_the_log_itself_earned_is_not_what_the_target_earns(
    world: World, runs_of: Callable[[Case], list[Evaluation]]
) -> None:
    case = CASES[1]
    covered = covering(runs_of(case), "logged", world.truth(case.target, case.k))
    assert stats.binom.cdf(covered, RUNS, 0.95) < BY_CHANCE


@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
def test_the_truth_is_what_the_plan_earns_when_it_is_served(world: World, case: Case) -> None:
    """The enumeration against the line itself: the target plays for an audience of its own."""
    played = world.evaluated(replace(case, logging=case.target), 800, seed=RUNS).logged
    assert abs(played.value - world.truth(case.target, case.k)) < 4 * played.standard_error


def test_enumerated_slates_are_drawn_as_often_as_they_are_likely(world: World) -> None:
    plan = Plan("als", 4, Exploration("softmax", 0.7))
    liked = world.population[0].liked
    ranked = recommend(Query(None, 4, recent=liked), Plan("als", 4), world.live, Deadline.none())
    chances = {tracks: p for p, tracks in slates_of(plan, ranked, 2)}
    drawn = dict.fromkeys(chances, 0)
    for seed in range(4000):
        slate = recommend(Query(None, 2, recent=liked, seed=seed), plan, world.live, Deadline.none())
        drawn[int(slate.item_ids[0]), int(slate.item_ids[1])] += 1
    assert len(chances) == 12
    fit = stats.chisquare(list(drawn.values()), [4000 * p for p in chances.values()])
    assert fit.pvalue > BY_CHANCE
