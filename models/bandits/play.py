"""What a bandit is, and how it fares on arms whose means are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Arms = npt.NDArray[np.int64]


class Bandit(Protocol):
    """Chooses one of `n_arms` arms again and again and learns from rewards of 0 to 1.

    Equal seeds and rewards give equal choices.
    """

    @property
    def n_arms(self) -> int:
        """How many arms there are."""
        ...

    def choose(self) -> int:
        """Draw the arm to play next, 0 <= arm < n_arms."""
        ...

    def learn(self, arm: int, reward: float) -> None:
        """Take in what an arm paid. Raises ValueError for no such arm or a reward outside [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Game:
    """Rounds in their order. arms: int64 (n_rounds,); rewards: float64 (n_rounds,), 0 or 1."""

    arms: Arms
    rewards: Floats
    means: Floats

    @property
    def regret(self) -> Floats:
        """Best mean minus the chosen arm's, summed up to each round: float64 (n_rounds,), never falls."""
        return np.cumsum(self.means.max() - self.means[self.arms])


def play(bandit: Bandit, means: npt.ArrayLike, n_rounds: int, *, seed: int = 0) -> Game:
    """Play `n_rounds` against arms that pay 1 with probability `means[arm]`, else 0.

    Whether an arm would pay in a round is drawn beforehand for all arms, so that bandits that are compared
    with one seed meet the same luck. Raises ValueError where means don't fit the bandit's arms.
    """
    odds = np.asarray(means, np.float64)
    if odds.shape != (bandit.n_arms,):
        raise ValueError(f"{odds.shape} means for {bandit.n_arms} arms")
    if not ((odds >= 0) & (odds <= 1)).all():
        raise ValueError("means are probabilities")
    pays = (np.random.default_rng(seed).random((n_rounds, bandit.n_arms)) < odds).astype(np.float64)
    arms, rewards = np.empty(n_rounds, np.int64), np.empty(n_rounds)
    for step in range(n_rounds):
        arms[step] = bandit.choose()
        rewards[step] = pays[step, arms[step]]
        bandit.learn(int(arms[step]), float(rewards[step]))
    return Game(arms, rewards, odds)
