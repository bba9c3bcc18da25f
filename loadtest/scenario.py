"""What a load test does: who asks, for what, how often."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loadtest.scenario_file import read_scenario
from loadtest.users import Crowd, UserId, parse_ids

SEED_STEP = 1_000_003
"""Apart by this, the workers of one distributed run draw different users."""


@dataclass(frozen=True, slots=True)
class ThinkTime:
    """Seconds between an answer and the same visitor's next request, uniform within both ends."""

    shortest: float
    longest: float

    @classmethod
    def parse(cls, text: str) -> ThinkTime:
        """Read `0.5..2`, one number, or `none`."""
        if text == "none":
            return cls(0.0, 0.0)
        first, _, last = text.partition("..")
        try:
            think = cls(float(first), float(last or first))
        except ValueError:
            raise ValueError(f"think time {text!r}: not of the form 0.5..2, 1 or none") from None
        if not 0 <= think.shortest <= think.longest:
            raise ValueError(f"think time {text!r}: the ends must rise from 0 or more")
        return think

    def draw(self, rng: random.Random) -> float:
        """Draw one pause, seconds."""
        return rng.uniform(self.shortest, self.longest)


@dataclass(frozen=True, slots=True)
class Request:
    """One question to `/reco`."""

    model: str
    user: UserId
    cold: bool
    k: int

    @property
    def path(self) -> str:
        """Path and query."""
        return f"/reco/{quote(self.model, safe='')}/{quote(str(self.user), safe='')}?k={self.k}"

    @property
    def name(self) -> str:
        """Line of the report that it counts in: never an id."""
        return f"/reco/{self.model} ({'cold' if self.cold else 'warm'})"


class Scenario:
    """Draws requests and pauses; everything is a function of the options and the seed."""

    def __init__(self, options: argparse.Namespace | None, *, worker: int = 0) -> None:
        """`options` as `add_options` declares them. Raises ValueError on one that makes no sense."""
        if options is None:
            raise ValueError("locust was started without its command line")
        if file := getattr(options, "scenario", ""):
            options = read_scenario(Path(file)).options(options.token)
        self.models = [model.strip() for model in options.models.split(",") if model.strip()]
        if not self.models:
            raise ValueError("models: name at least one")
        if options.k < 1:
            raise ValueError(f"k must be at least 1 (found {options.k})")
        self.k: int = options.k
        self.think = ThinkTime.parse(options.think)
        seed = options.seed + worker * SEED_STEP
        self._crowd = Crowd(parse_ids(options.ids), exponent=options.zipf, cold_share=options.cold, seed=seed)
        self._rng = random.Random(seed + 1)  # noqa: S311 - draws models and pauses, not secrets
        self.headers: dict[str, str] = {"Authorization": f"Bearer {options.token}"} if options.token else {}

    def next_request(self) -> Request:
        """Draw one request."""
        user, cold = self._crowd.draw()
        return Request(self._rng.choice(self.models), user, cold, self.k)

    def next_pause(self) -> float:
        """Draw one think time, seconds."""
        return self.think.draw(self._rng)


def add_options(parser: Any) -> None:
    """Declare the scenario's options to locust's parser; each can also come from the environment."""
    add = parser.add_argument
    add(
        "--scenario",
        env_var="RECO_LOAD_SCENARIO",
        default="",
        help="scenario file (TOML), instead of the options below",
    )
    add("--ids", env_var="RECO_LOAD_IDS", default="1..100000", help="users: 1..100000, or a file of ids")
    add("--zipf", type=float, env_var="RECO_LOAD_ZIPF", default=1.0, help="skew of users; 0: uniform")
    add("--cold", type=float, env_var="RECO_LOAD_COLD", default=0.05, help="share of unknown users")
    add("--think", env_var="RECO_LOAD_THINK", default="0.5..2", help="pause in seconds, or none")
    add("--k", type=int, env_var="RECO_LOAD_K", default=10, help="items to ask for")
    add("--models", env_var="RECO_LOAD_MODELS", default="default", help="models, by comma")
    add("--seed", type=int, env_var="RECO_LOAD_SEED", default=1, help="seed of every draw")
    add(
        "--token",
        env_var="RECO_TOKEN",
        default="",
        help="bearer token",
        is_secret=True,
        include_in_web_ui=False,
    )
