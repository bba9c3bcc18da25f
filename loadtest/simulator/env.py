"""The audience as a Gymnasium environment: an action is a track, its reward the share that was heard.

Needs the extra `sim`. Nothing here speaks HTTP: an agent plays in process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Discrete

from loadtest.simulator.audience import Listener
from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.session import Session

Observation = dict[str, int]


class RecEnv(gymnasium.Env[Observation, int]):
    """An episode is a session of a listener drawn uniformly; it terminates when they leave.

    Observation: `user` (place in the audience, which is the id where ids count from 0) and the `track` heard last.
    `reset` draws the listener and the first track, whose time of 1.0 is no reward. With `legacy` the draws are those of
    numpy's RandomState in the course's order, so that a seed gives its trajectories.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - Gymnasium declares it so

    def __init__(
        self,
        catalogue: Catalogue,
        audience: Sequence[Listener],
        *,
        legacy: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self._catalogue, self._audience, self._legacy = catalogue, audience, legacy
        self.render_mode = render_mode
        self.action_space = Discrete(len(catalogue))  # type: ignore[assignment]  # of numpy ints
        self.observation_space = Dict({"user": Discrete(len(audience)), "track": Discrete(len(catalogue))})  # type: ignore[assignment]  # a Dict of Discrete observes a dict of ints
        self._old: np.random.RandomState | None = None
        self._place = 0
        self._session: Session | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a session; a seed restarts the draws."""
        super().reset(seed=seed, options=options)
        if self._legacy:
            if self._old is None or seed is not None:
                self._old = np.random.RandomState(seed)  # the course's generator
            self._place = int(self._old.randint(len(self._audience)))
            self._session = Session(self._audience[self._place], self._catalogue, self._old)
        else:
            self._place = int(self.np_random.integers(len(self._audience)))
            self._session = Session(self._audience[self._place], self._catalogue, self.np_random)
        return self._observe(self._session), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Offer a track. Raises ValueError for one outside the catalogue, or without a session that goes on."""
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is no track of 0 to {len(self._catalogue) - 1}")
        session = self._session
        if session is None or session.over:
            raise ValueError("the session is over: reset() begins another")
        playback = session.listen(int(action))
        return self._observe(session), playback.time, session.over, False, {"budget": session.budget}

    def render(self) -> str:
        """Lay out the session so far."""
        if self._session is None:
            return ""
        heard = ", ".join(f"{playback.track} ({playback.time:.2f})" for playback in self._session.played)
        return f"user {self._session.listener.user}: {heard}; budget {self._session.budget}"

    def _observe(self, session: Session) -> Observation:
        return {"user": self._place, "track": session.played[-1].track}
