"""One suite for all bandits, then what each is by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bandits.bandits import (
    DecayingEpsilonGreedy,
    EpsilonGreedy,
    GradientBandit,
    ThompsonSampling,
    Ucb1,
)
from models.bandits.play import Bandit, play

MEANS = np.array([0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.8])
N_ROUNDS, SEEDS = 2000, range(4)

Make = Callable[[int, int], Bandit]
BANDITS: dict[str, Make] = {
    "epsilon": lambda n, seed: EpsilonGreedy(n, seed=seed),
    "decaying": lambda n, seed: DecayingEpsilonGreedy(n, seed=seed),
    "ucb1": lambda n, seed: Ucb1(n, seed=seed),
    "gradient": lambda n, seed: GradientBandit(n, seed=seed),
    "thompson": lambda n, seed: ThompsonSampling(n, seed=seed),
}
every = pytest.mark.parametrize("make", BANDITS.values(), ids=BANDITS.keys())


@every
def test_regret_is_far_below_chance_and_grows_ever_slower(make: Make) -> None:
    regret = np.mean([play(make(10, seed), MEANS, N_ROUNDS, seed=seed).regret for seed in SEEDS], axis=0)
    by_chance = N_ROUNDS * (MEANS.max() - MEANS.mean())
    assert regret[-1] < by_chance / 2
    assert regret[-1] - regret[N_ROUNDS // 2] < regret[N_ROUNDS // 2] * 0.8


@every
def test_best_arm_is_played_most(make: Make) -> None:
    arms = play(make(10, 1), MEANS, N_ROUNDS, seed=1).arms
    assert np.bincount(arms[N_ROUNDS // 2 :], minlength=10).argmax() == 9


@every
def test_equal_seeds_play_alike_and_others_do_not(make: Make) -> None:
    first, second, other = (play(make(10, seed), MEANS, 200, seed=7).arms for seed in (5, 5, 6))
    assert first.tolist() == second.tolist()
    assert first.tolist() != other.tolist()


@every
@settings(max_examples=25, deadline=None)
@given(n_arms=st.integers(1, 6), rewards=st.lists(st.floats(0, 1), max_size=30), seed=st.integers(0, 9))
def test_any_rewards_leave_a_valid_choice(make: Make, n_arms: int, rewards: list[float], seed: int) -> None:
    bandit = make(n_arms, seed)
    for reward in rewards:
        bandit.learn(bandit.choose(), reward)
    assert 0 <= bandit.choose() < n_arms


@every
@pytest.mark.parametrize(("arm", "reward"), [(3, 0.5), (-1, 0.5), (0, 1.1), (0, -0.1), (0, float("nan"))])
def test_what_cannot_have_been_played_or_paid_is_refused(make: Make, arm: int, reward: float) -> None:
    with pytest.raises(ValueError, match=r"arm|reward"):
        make(3, 0).learn(arm, reward)


@every
def test_no_arms_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="needs an arm"):
        make(0, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_average_is_the_mean_of_what_an_arm_paid(rewards: list[float]) -> None:
    bandit = EpsilonGreedy(2)
    for reward in rewards:
        bandit.learn(1, reward)
    assert bandit.averages == pytest.approx([0, np.mean(rewards)])


def test_epsilon_is_the_share_of_chance() -> None:
    bandit = EpsilonGreedy(4, 0.4, seed=2)
    bandit.learn(2, 1.0)
    shares = np.bincount([bandit.choose() for _ in range(4000)], minlength=4) / 4000
    assert shares == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=0.03)


def test_without_chance_the_best_average_is_certain() -> None:
    bandit = EpsilonGreedy(4, 0.0)
    bandit.learn(2, 1.0)
    assert {bandit.choose() for _ in range(50)} == {2}


def test_epsilon_falls_with_every_play() -> None:
    bandit = DecayingEpsilonGreedy(2, beta=0.5)
    epsilons = []
    for _ in range(4):
        epsilons.append(bandit.epsilon)
        bandit.learn(0, 1.0)
    assert epsilons == pytest.approx([1, 1 / 1.5, 1 / 2, 1 / 2.5])


def test_upper_bounds_by_hand() -> None:
    bandit = Ucb1(2)
    for arm, reward in ((0, 1.0), (1, 0.0), (0, 0.0)):
        bandit.learn(arm, reward)
    assert bandit.bounds() == pytest.approx([0.5 + np.sqrt(np.log(3)), np.sqrt(2 * np.log(3))])
    assert bandit.choose() == 0


def test_upper_bounds_try_every_arm_first() -> None:
    assert sorted(play(Ucb1(10), MEANS, 10).arms) == list(range(10))


def test_preferences_by_hand() -> None:
    bandit = GradientBandit(2, step=0.5)
    bandit.learn(0, 1.0)  # baseline 0: half of the step towards arm 0
    assert bandit.preferences == pytest.approx([0.25, -0.25])
    bandit.learn(0, 1.0)  # as good as the baseline: nothing to learn
    assert bandit.preferences == pytest.approx([0.25, -0.25])
    likely = 1 / (1 + np.exp(-0.5))
    assert bandit.probabilities() == pytest.approx([likely, 1 - likely])
    bandit.learn(1, 0.0)  # worse than the baseline of 1
    assert bandit.preferences == pytest.approx([0.25 + 0.5 * likely, -0.25 - 0.5 * likely])


def test_certain_rewards_are_counted_as_they_are() -> None:
    bandit = ThompsonSampling(2)
    for reward in (1.0, 0.0, 1.0):
        bandit.learn(0, reward)
    assert bandit.successes.tolist() == [2, 0]
    assert bandit.plays.tolist() == [3, 0]


def test_partial_reward_succeeds_as_often_as_it_says() -> None:
    bandit = ThompsonSampling(1, seed=4)
    for _ in range(2000):
        bandit.learn(0, 0.3)
    assert bandit.successes[0] / 2000 == pytest.approx(0.3, abs=0.04)


def test_bandits_meet_the_same_luck() -> None:
    games = [play(make(3, 0), [0.5, 0.5, 0.5], 300, seed=3) for make in BANDITS.values()]
    paid: dict[tuple[int, int], set[float]] = {}
    for game in games:
        for step, (arm, reward) in enumerate(zip(game.arms.tolist(), game.rewards.tolist(), strict=True)):
            paid.setdefault((step, arm), set()).add(reward)
    assert {len(rewards) for rewards in paid.values()} == {1}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_regret_never_falls_and_starts_below_one(means: list[float]) -> None:
    regret = play(EpsilonGreedy(len(means)), means, 20).regret
    assert (np.diff(regret) >= 0).all()
    assert 0 <= regret[0] <= 1


@pytest.mark.parametrize("means", [[0.5], [0.5, 1.5], [0.5, float("nan")]])
def test_means_that_do_not_fit_are_refused(means: list[float]) -> None:
    with pytest.raises(ValueError, match="means"):
        play(Ucb1(2), means, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EpsilonGreedy(2, 1.5),
        lambda: DecayingEpsilonGreedy(2, 0.0),
        lambda: GradientBandit(2, 0.0),
    ],
)
def test_settings_without_meaning_are_refused(wrong: Callable[[], Bandit]) -> None:
    with pytest.raises(ValueError, match=r"epsilon|beta|step"):
        wrong()
