from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from loadtest.simulator.audience import draw_audience
from loadtest.simulator.env import RecEnv
from loadtest.simulator.generator import generate_catalogue

CATALOGUE = generate_catalogue(60, 12, 1)
AUDIENCE = draw_audience(20, 60, 1)


def test_gymnasium_accepts_the_environment() -> None:
    check_env(RecEnv(CATALOGUE, AUDIENCE, render_mode="ansi"), skip_render_check=True)


def episode(env: RecEnv, seed: int) -> list[tuple[int, int, float]]:
    observation, _ = env.reset(seed=seed)
    steps = [(observation["user"], observation["track"], 1.0)]
    over, n = False, 0
    while not over:
        observation, reward, over, truncated, _ = env.step((11 * n) % 60)
        assert not truncated
        steps.append((observation["user"], observation["track"], reward))
        n += 1
    return steps


@pytest.mark.parametrize("legacy", [False, True])
def test_a_seed_repeats_an_episode(legacy: bool) -> None:
    env = RecEnv(CATALOGUE, AUDIENCE, legacy=legacy)

    first = episode(env, 5)

    assert episode(env, 5) == first
    assert any(episode(env, seed) != first for seed in range(6, 10))


def test_legacy_draws_are_the_courses_in_its_order() -> None:
    steps = episode(RecEnv(CATALOGUE, AUDIENCE, legacy=True), 9)

    # The same session from the formulas alone: user, interest, first track, then one uniform a track.
    chance = np.random.RandomState(9)
    place = chance.randint(len(AUDIENCE))
    person = AUDIENCE[place]
    interest = chance.choice(person.interests)
    vectors = CATALOGUE.embeddings
    neighbours = np.argsort(
        -(vectors.astype(np.float32) @ vectors[interest].astype(np.float32)), kind="stable"
    )
    played = [(int(chance.choice(neighbours[:10])), 1.0)]
    budget, n = 5, 0
    while budget > 0:
        track = (11 * n) % 60
        score = float(np.dot(vectors[track], vectors[interest]))
        heard = sum(CATALOGUE.artists[other] == CATALOGUE.artists[track] for other, _ in played)
        raw = 1 / (1 + np.exp(-(score - person.consume_bias) * person.consume_sharpness))
        repeated = any(other == track for other, _ in played)
        time = 0.0 if repeated else float(np.around(raw * np.power(0.8, heard), 2))
        budget -= chance.random_sample() > time
        played.append((track, time))
        n += 1
    assert steps == [(place, track, time) for track, time in played]


def test_only_tracks_of_the_catalogue_can_be_offered() -> None:
    env = RecEnv(CATALOGUE, AUDIENCE)
    with pytest.raises(ValueError, match="over"):
        env.step(0)
    env.reset(seed=1)
    with pytest.raises(ValueError, match="no track"):
        env.step(60)


def test_a_session_that_is_over_takes_no_more_tracks() -> None:
    env = RecEnv(CATALOGUE, AUDIENCE)
    episode(env, 1)
    with pytest.raises(ValueError, match="over"):
        env.step(0)
