"""Five bandits for rewards of 0 to 1 (Sutton & Barto 2018, chapter 2; Auer et al. 2002; Chapelle & Li 2011)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from models.bandits.play import Arms, Floats


class _Averaging(ABC):
    """Keeps how often each arm was played and what it paid on average.

    plays: int64 (n_arms,). averages: float64 (n_arms,), 0 for an arm that was never played.
    """

    plays: Arms
    averages: Floats

    def __init__(self, n_arms: int, *, seed: int = 0) -> None:
        if n_arms < 1:
            raise ValueError(f"a bandit needs an arm, not {n_arms}")
        self.plays = np.zeros(n_arms, np.int64)
        self.averages = np.zeros(n_arms)
        self._rng = np.random.default_rng(seed)

    @property
    def n_arms(self) -> int:
        """How many arms there are."""
        return len(self.plays)

    @abstractmethod
    def choose(self) -> int:
        """Draw the arm to play next."""

    def learn(self, arm: int, reward: float) -> None:
        """Take in what an arm paid. Raises ValueError for no such arm or a reward outside [0, 1]."""
        if not 0 <= arm < self.n_arms:
            raise ValueError(f"arm {arm} of {self.n_arms}")
        if not 0.0 <= reward <= 1.0:
            raise ValueError(f"a reward is between 0 and 1, not {reward}")
        self._take_in(arm, reward)

    def _take_in(self, arm: int, reward: float) -> None:
        """Update the averages; a bandit that knows more updates that first."""
        self.plays[arm] += 1
        self.averages[arm] += (reward - self.averages[arm]) / self.plays[arm]

    def _best(self, values: Floats) -> int:
        """An arm of the largest value; equal ones are equally likely."""
        return int(self._rng.choice(np.flatnonzero(values == values.max())))


class EpsilonGreedy(_Averaging):
    """Any arm with probability epsilon, else the best average. Its regret grows with epsilon for ever."""

    def __init__(self, n_arms: int, epsilon: float = 0.1, *, seed: int = 0) -> None:
        super().__init__(n_arms, seed=seed)
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon is a probability, not {epsilon}")
        self._epsilon = epsilon

    @property
    def epsilon(self) -> float:
        """Probability that the next arm is drawn from all."""
        return self._epsilon

    def choose(self) -> int:
        """Draw the arm to play next."""
        if self._rng.random() < self.epsilon:
            return int(self._rng.integers(self.n_arms))
        return self._best(self.averages)


class DecayingEpsilonGreedy(EpsilonGreedy):
    """Epsilon-greedy with epsilon = 1 / (1 + n beta) after n plays: all chance first, ever less later."""

    def __init__(self, n_arms: int, beta: float = 0.05, *, seed: int = 0) -> None:
        super().__init__(n_arms, 1.0, seed=seed)
        if not beta > 0.0:
            raise ValueError(f"beta must be above 0, not {beta}")
        self.beta = beta

    @property
    def epsilon(self) -> float:
        """Probability that the next arm is drawn from all."""
        return 1.0 / (1.0 + float(self.plays.sum()) * self.beta)


class Ucb1(_Averaging):
    """The largest upper confidence bound: average + sqrt(2 ln n / plays); each arm once first (Auer et al.)."""

    def choose(self) -> int:
        """Pick the arm to play next."""
        if not self.plays.all():
            return self._best(-(self.plays > 0).astype(np.float64))
        return self._best(self.bounds())

    def bounds(self) -> Floats:
        """Upper confidence bounds, float64 (n_arms,), infinite for an arm that was never played."""
        n = float(self.plays.sum())
        bonus = np.full(self.n_arms, np.inf)
        played = self.plays > 0
        bonus[played] = np.sqrt(2.0 * np.log(n) / self.plays[played])
        return np.asarray(self.averages + bonus, np.float64)


class GradientBandit(_Averaging):
    """Softmax over preferences that climb the expected reward (Sutton & Barto, section 2.8).

    H(a) += step (reward - baseline) (1[a played] - pi(a)), baseline: the mean of all rewards before.
    """

    def __init__(self, n_arms: int, step: float = 0.2, *, seed: int = 0) -> None:
        super().__init__(n_arms, seed=seed)
        if not step > 0.0:
            raise ValueError(f"step must be above 0, not {step}")
        self.step = step
        self.preferences = np.zeros(n_arms)

    def probabilities(self) -> Floats:
        """Softmax of the preferences, float64 (n_arms,), sums to 1."""
        odds = np.exp(self.preferences - self.preferences.max())
        return np.asarray(odds / odds.sum(), np.float64)

    def choose(self) -> int:
        """Draw the arm to play next."""
        return int(self._rng.choice(self.n_arms, p=self.probabilities()))

    def _take_in(self, arm: int, reward: float) -> None:
        n = int(self.plays.sum())
        baseline = float(self.plays @ self.averages) / n if n else 0.0
        towards = -self.probabilities()
        towards[arm] += 1.0
        self.preferences += self.step * (reward - baseline) * towards
        super()._take_in(arm, reward)


class ThompsonSampling(_Averaging):
    """The best of one draw an arm from Beta(1 + successes, 1 + failures), uniform before any reward.

    A reward between 0 and 1 is a success with that probability, so that the posterior stays a Beta
    (Agrawal & Goyal 2012, algorithm 2).
    """

    def __init__(self, n_arms: int, *, seed: int = 0) -> None:
        super().__init__(n_arms, seed=seed)
        self.successes = np.zeros(n_arms, np.int64)

    def choose(self) -> int:
        """Draw the arm to play next."""
        failures = self.plays - self.successes
        return self._best(self._rng.beta(1.0 + self.successes, 1.0 + failures))

    def _take_in(self, arm: int, reward: float) -> None:
        self.successes[arm] += int(self._rng.random() < reward)
        super()._take_in(arm, reward)
