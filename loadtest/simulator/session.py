"""One sitting of one listener: how long they hear what they are offered, and when they have had enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from loadtest.simulator.audience import Listener
from loadtest.simulator.catalogue import Catalogue


class Chance(Protocol):
    """What a session draws from: numpy's Generator, or its older RandomState."""

    def random(self) -> float:
        """Draw from U(0, 1)."""

    def choice(self, a: Sequence[int], /) -> Any:
        """Draw one of them, uniformly."""


class Playback(NamedTuple):
    """A track and the share of it that was heard, 0 to 1 in hundredths."""

    track: int
    time: float


class Session:
    """Opens with a track near one interest of the listener, drawn uniformly among its neighbours and heard to its end;
    every track after it is judged by the interest, not by that track. `played` has them in order, the first included.
    """

    __slots__ = ("_artists", "_catalogue", "_chance", "_tracks", "budget", "interest", "listener", "played")

    def __init__(self, listener: Listener, catalogue: Catalogue, chance: Chance) -> None:
        self.listener, self._catalogue, self._chance = listener, catalogue, chance
        self.interest = int(chance.choice(listener.interests))
        first = int(chance.choice(catalogue.nearest(self.interest, listener.interest_neighbours)))
        self.budget = listener.session_budget
        self.played = [Playback(first, 1.0)]
        self._tracks = {first}
        self._artists = Counter([catalogue.artists[first]])

    @property
    def over(self) -> bool:
        """Whether the listener has left."""
        return self.budget <= 0

    def listen(self, track: int) -> Playback:
        """Hear a track: s = its inner product with the interest's embedding,

            time = round(expit((s - bias) * sharpness) * gamma ^ (tracks of its artist so far), 2),

        0 for one heard before in the session. What is left off costs patience: 1 of the budget if U(0, 1) > time.
        """
        playback = Playback(track, self._time(track))
        if self._chance.random() > playback.time:
            self.budget -= 1
        self.played.append(playback)
        self._tracks.add(track)
        self._artists[self._catalogue.artists[track]] += 1
        return playback

    def _time(self, track: int) -> float:
        if track in self._tracks:
            return 0.0
        listener = self.listener
        score = self._catalogue.affinity(track, self.interest)
        raw = expit((score - listener.consume_bias) * listener.consume_sharpness)
        heard_before = self._artists[self._catalogue.artists[track]]
        return hundredths(raw * listener.artist_discount_gamma**heard_before)


def expit(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else 0.0  # e^709 is the last that a float holds


def hundredths(share: float) -> float:
    """Round as numpy.around(share, 2) does: scale, round half to even, scale back."""
    return round(share * 100) / 100
