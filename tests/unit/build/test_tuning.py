from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.build.tuning import Axis, Gains, Trial, climb


@dataclass(frozen=True, slots=True)
class Config:
    size: int = 1
    pull: int | None = None
    free: int = 0


SIZES = (1, 2, 4, 8, 16, 32, 64)
PULLS = (None, 1, 2, 3)


def hill(config: Config) -> Gains:
    """Highest at size 16, pull 2; ten users of one mind."""
    height = 10 - abs(SIZES.index(config.size) - 4) - abs(PULLS.index(config.pull) - 2)
    return np.full(10, float(height))


def test_the_top_of_a_hill_is_found_without_probes() -> None:
    found = climb(Config(), [Axis("size", SIZES), Axis("pull", PULLS)], hill, max_fits=100)
    assert (found.config.size, found.config.pull) == (16, 2)
    assert found.score == 10
    assert len(found.trials) == len({trial.config for trial in found.trials})


def test_probes_jump_over_a_valley() -> None:
    def valley(config: Config) -> Gains:
        return np.full(4, {1: 1.0, 2: 0.0, 4: 0.0, 8: 2.0, 16: 3.0}.get(config.size, 0.0))

    stuck = climb(Config(), [Axis("size", SIZES)], valley, max_fits=100)
    jumped = climb(Config(), [Axis("size", SIZES, probes=(8,))], valley, max_fits=100)
    assert stuck.config.size == 1
    assert jumped.config.size == 16


def test_a_gain_within_the_noise_does_not_move_a_search_with_a_margin() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 400)
    noise -= noise.mean()

    def gains(config: Config) -> Gains:
        return noise * config.size + 0.01 * config.size

    axes = [Axis("size", (1, 2), probes=(2,))]
    assert climb(Config(), axes, gains, max_fits=10).config.size == 2
    assert climb(Config(), axes, gains, max_fits=10, margin=1.0).config.size == 1


def test_settings_that_need_no_new_fit_are_not_counted_as_one() -> None:
    fits = set()

    def examine(config: Config) -> Gains:
        fits.add(replace(config, free=0))
        return np.full(3, float(config.size + config.free))

    axes = [Axis("size", SIZES), Axis("free", tuple(range(10)))]
    found = climb(Config(), axes, examine, max_fits=3, fit_of=lambda config: replace(config, free=0))
    assert len(fits) == 3
    assert (found.config.size, found.config.free) == (4, 9)


def test_time_stops_a_search() -> None:
    found = climb(Config(), [Axis("size", SIZES)], hill, max_fits=100, seconds=0.0)
    assert [trial.config for trial in found.trials] == [Config()]


@given(
    heights=st.lists(st.floats(0, 1), min_size=7, max_size=7),
    start=st.sampled_from(SIZES),
    probes=st.lists(st.sampled_from(SIZES), max_size=3),
    budget=st.integers(1, 9),
)
def test_the_outcome_is_the_best_tried_and_within_budget(
    heights: list[float], start: int, probes: list[int], budget: int
) -> None:
    told: list[Trial[Config]] = []
    found = climb(
        Config(size=start),
        [Axis("size", SIZES, tuple(probes))],
        lambda config: np.full(5, heights[SIZES.index(config.size)]),
        max_fits=budget,
        on_trial=told.append,
    )
    assert tuple(told) == found.trials
    assert 1 <= len(found.trials) <= budget
    assert found.score == pytest.approx(max(trial.score for trial in found.trials), abs=1e-8)
