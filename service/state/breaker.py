"""A circuit breaker: when to stop asking a server that fails, and when to try whether it is back."""

from __future__ import annotations

import random
from typing import Literal

State = Literal["closed", "half_open", "open"]

TOLERATED = 5
"""Failures in a row before trying again waits longer than AT_ONCE_S."""
AT_ONCE_S = 0.02
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0
JITTER = 0.2


class Breaker:
    """Closed: requests go out. Open: none does, for `pause_s`. Half open: a probe is out, and it decides.

    A failure opens it. The first few pauses are a moment, which a lost connection needs to be made anew; after
    TOLERATED failures in a row they double from FIRST_PAUSE_S up to LONGEST_PAUSE_S. Only an answered request ends
    the row: a server that greets and then hangs is not let back by its greetings.
    """

    __slots__ = ("_chance", "failures", "state")

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311 - spreads replicas, keeps no secret
        self.state: State = "open"
        self.failures = 0

    @property
    def pause_s(self) -> float:
        """How long to stay open, give or take JITTER."""
        beyond = self.failures - TOLERATED
        pause = AT_ONCE_S if beyond < 0 else min(FIRST_PAUSE_S * 2.0 ** min(beyond, 16), LONGEST_PAUSE_S)
        return pause * (1 + self._chance.uniform(-JITTER, JITTER))

    def failed(self) -> None:
        """Take note that a request or a probe failed."""
        self.failures += 1
        self.state = "open"

    def probing(self) -> None:
        """Take note that a probe goes out."""
        self.state = "half_open"

    def probed(self) -> None:
        """Take note that a probe was answered."""
        self.state = "closed"

    def answered(self) -> None:
        """Take note that a request was answered."""
        self.failures = 0
