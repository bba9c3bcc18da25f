"""Who listens: people with interests, a threshold to please and a patience."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.simulator.catalogue import json_lines
from loadtest.simulator.errors import SimulatorError

USERS = "users.json"
_AN_AUDIENCE = 3
"""End of a seed: no other draw of the simulator has it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A user of the service. The defaults are those of the course for a file that doesn't say.

    interests: tracks that stand for a taste each. interest_neighbours: a session opens with one of so many tracks
    around an interest. consume_bias: affinity at which half a track is heard. consume_sharpness: how steeply that rises
    with affinity. session_budget: tracks left off before leaving. artist_discount_gamma: what a track
    loses for each track of its artist before it. openness: part of the file format; no formula reads it.
    """

    user: int
    interests: tuple[int, ...]
    consume_bias: float = 5.0
    consume_sharpness: float = 1.0
    openness: float | None = None
    interest_neighbours: int = 10
    session_budget: int = 5
    artist_discount_gamma: float = 0.8


def draw_audience(n: int, n_tracks: int, seed: int) -> list[Listener]:
    """Draw listeners: bias U(.1, .6), sharpness U(4, 15), openness U(.25, .75), 1 + Bin(5, .5) different interests.

    Raises SimulatorError for nobody, or a negative seed.
    """
    if n < 1 or seed < 0:
        raise SimulatorError(f"{n} users with seed {seed}: there must be one, and the seed not be negative")
    rng = np.random.default_rng([seed, n, n_tracks, _AN_AUDIENCE])
    bias, sharpness = rng.uniform(0.1, 0.6, n), rng.uniform(4, 15, n)
    openness, interests = rng.uniform(0.25, 0.75, n), 1 + rng.binomial(5, 0.5, n)
    return [
        Listener(
            user,
            tuple(rng.choice(n_tracks, min(int(interests[user]), n_tracks), replace=False).tolist()),
            float(bias[user]),
            float(sharpness[user]),
            float(openness[user]),
        )
        for user in range(n)
    ]


def read_audience(path: Path, n_tracks: int) -> list[Listener]:
    """Read one JSON object a line; `user` and `interests` are needed. Raises SimulatorError naming row and key."""
    listeners: list[Listener] = []
    for row, line in json_lines(path):
        try:
            listeners.append(_listener(line, n_tracks))
        except SimulatorError as error:
            raise SimulatorError(f"{path}: row {row}: {error}") from None
    if not listeners:
        raise SimulatorError(f"{path}: nobody in it")
    if len({listener.user for listener in listeners}) != len(listeners):
        raise SimulatorError(f"{path}: a user is there twice")
    return listeners


def write_audience(listeners: Sequence[Listener], path: Path) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for listener in listeners:
            file.write(json.dumps({k: v for k, v in asdict(listener).items() if v is not None}) + "\n")


def _listener(line: dict[str, Any], n_tracks: int) -> Listener:
    whole = {
        key: _whole(key, line.get(key), least)
        for key, least in (("user", 0), ("interest_neighbours", 1), ("session_budget", 1))
        if key == "user" or key in line
    }
    interests = line.get("interests")
    if not isinstance(interests, list) or not interests:
        raise SimulatorError(f"'interests' is {interests!r}, not a list of tracks")
    for track in interests:
        if _whole("interests", track, 0) >= n_tracks:
            raise SimulatorError(f"'interests' names track {track}; the catalogue ends at {n_tracks - 1}")
    real = {
        key: _real(key, line[key])
        for key in ("consume_bias", "consume_sharpness", "openness", "artist_discount_gamma")
        if key in line
    }
    return Listener(interests=tuple(interests), **whole, **real)  # type: ignore[arg-type]


def _whole(key: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise SimulatorError(f"'{key}' is {value!r}, not a whole number from {least}")
    return value


def _real(key: str, value: Any) -> float:
    if type(value) not in {int, float} or not np.isfinite(value):
        raise SimulatorError(f"'{key}' is {value!r}, not a number")
    return float(value)
