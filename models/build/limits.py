"""How long a build's searches and trainings may take, so that the whole of it takes about the minutes asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.build.recipes import RECIPES

_SEARCHES = 0.15
_TRAININGS = 0.2
"""Of the time asked for; what is left is for reading, other models, the ranker and the bundle."""
_KEEPS_TIME = "max_seconds"


@dataclass(frozen=True, slots=True)
class Limits:
    """`searches_end`: by time.monotonic(), when searches end. training: model -> seconds of one training."""

    searches_end: float = math.inf
    training: Mapping[str, float] | None = None

    @classmethod
    def within(cls, minutes: float | None, names: Sequence[str], trainings: int) -> Limits:
        """Share out a build's minutes, from now on; None: no limits. trainings: how often it trains each model.

        Models that keep to a time (`max_seconds`) get equal parts of theirs, but none more than it takes where nobody
        presses it.
        """
        if minutes is None:
            return cls()
        seconds = 60 * minutes
        usual = {name: most for name in names if (most := _usual_seconds(name)) is not None}
        left, training = _TRAININGS * seconds / trainings, {}
        for place, name in enumerate(sorted(usual, key=usual.__getitem__)):
            training[name] = min(left / (len(usual) - place), usual[name])
            left -= training[name]
        return cls(time.monotonic() + _SEARCHES * seconds, training)

    def kept_by(self, name: str, config: Any) -> Any:
        """The configuration, with no more time for a training than there is."""
        most = (self.training or {}).get(name)
        if most is None:
            return config
        return replace(config, max_seconds=min(most, config.max_seconds))

    def of_search(self, left: int, at_once: int) -> float:
        """Seconds for the next of `left` searches, of which so many run at once."""
        return max(0.0, self.searches_end - time.monotonic()) * min(at_once, left) / left


UNLIMITED = Limits()


def _usual_seconds(name: str) -> float | None:
    most = getattr(RECIPES[name].config_type(), _KEEPS_TIME, None)
    return None if most is None else float(most)
