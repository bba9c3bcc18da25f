"""The course's command line over our simulator.

    python -m sim.run --episodes 1000 --config config/env.yml single --recommender remote --seed 31337
    python -m sim.run --episodes 1000 --config config/env.yml multi --processes 2

An episode is a session. After each day of `single` the terminal is asked for another, y or n. `dummy` plays any track,
`remote` asks a service by botify's protocol, `console` asks you. The listeners' draws are those of numpy's RandomState
in the course's order, so a seed gives its trajectories; the processes of `multi` are seeded 0, 1, … .
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loadtest.simulator.audience import Listener, read_audience
from loadtest.simulator.catalogue import Catalogue, read_catalogue
from loadtest.simulator.console import Console
from loadtest.simulator.env import RecEnv
from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.figures import Figure
from loadtest.simulator.http import Connection, HttpFailure
from loadtest.simulator.services import AnyTrack, Botify, Service, ServiceFault, wall_ms
from loadtest.simulator.session import Playback

from .config import EnvConfig, read_config

RECOMMENDERS = ("dummy", "remote", "console")
_BAD_INPUT, _FELL = 2, 1
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Episode:
    """A session: what it heard of what was recommended, and how many tracks that were."""

    day: int
    reward: float
    steps: int


@dataclass(frozen=True, slots=True)
class World:
    """Catalogue and audience of a configuration."""

    config: EnvConfig
    catalogue: Catalogue
    audience: Sequence[Listener]

    @classmethod
    def of(cls, config: EnvConfig) -> World:
        """Read the files. Raises SimulatorError."""
        catalogue = read_catalogue(config.tracks, config.embeddings)
        return cls(config, catalogue, read_audience(config.users, len(catalogue)))

    def service(self, recommender: str, seed: int) -> Service:
        """Whom the listeners ask."""
        if recommender == "console":
            return Console(self.catalogue)
        if recommender == "dummy":
            return AnyTrack(self.catalogue, seed)
        return Botify(Connection(self.config.url, timeout_s=_TIMEOUT_S), len(self.catalogue))


def main(argv: Sequence[str] | None = None) -> int:
    """Run; a line of progress to stderr, the table to stdout. 0; 1 where the service fails; 2 for bad input."""
    args = _arguments(argv)
    began = time.monotonic()
    try:
        config = read_config(args.config)
        episodes = _single(config, args) if args.mode == "single" else _multi(config, args)
    except (SimulatorError, FileNotFoundError) as error:
        sys.stderr.write(f"sim.run: {error}\n")
        return _BAD_INPUT
    except (ServiceFault, HttpFailure) as error:
        sys.stderr.write(f"sim.run: the recommender at {config.url} failed: {error}\n")
        return _FELL
    sys.stdout.write(f"Time: {int(time.monotonic() - began)} seconds\n{table(episodes)}\n")
    return 0


def table(episodes: Sequence[Episode]) -> str:
    """Markdown: mean and standard error of reward and steps, a row a day."""
    lines = ["| day | reward mean | reward sem | steps mean | steps sem |", "|---:|---:|---:|---:|---:|"]
    for day in sorted({episode.day for episode in episodes}):
        of_day = [episode for episode in episodes if episode.day == day]
        cells = [
            _cells(Figure.of([one.reward for one in of_day])),
            _cells(Figure.of([one.steps for one in of_day])),
        ]
        lines.append(f"| {day} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(found: Figure) -> str:
    return f"{found.mean:.6g} | {'nan' if found.sem is None else format(found.sem, '.6g')}"


def _single(config: EnvConfig, args: argparse.Namespace) -> list[Episode]:
    world = World.of(config)
    env = RecEnv(world.catalogue, world.audience, legacy=True)
    episodes: list[Episode] = []
    day = 1
    while True:
        seed = args.seed if day == 1 else None
        episodes += asyncio.run(_day(world, env, args.recommender, day, args.episodes, args.seed, seed))
        if not _another(day):
            return episodes
        day += 1


def _multi(config: EnvConfig, args: argparse.Namespace) -> list[Episode]:
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_process, config, args.episodes, seed) for seed in range(args.processes)]
        return [episode for one in running for episode in one.result()]


def _process(config: EnvConfig, episodes: int, seed: int) -> list[Episode]:
    world = World.of(config)
    env = RecEnv(world.catalogue, world.audience, legacy=True)
    return asyncio.run(_day(world, env, "remote", 1, episodes, seed, seed))


async def _day(
    world: World, env: RecEnv, recommender: str, day: int, episodes: int, chance: int, seed: int | None
) -> list[Episode]:
    """Live through a day; `seed` restarts the listeners' draws, `chance` those of a dummy."""
    service = world.service(recommender, chance + day)
    shown: Callable[[int], None] = _Progress(day, episodes)
    found: list[Episode] = []
    try:
        for number in range(episodes):
            found.append(await _episode(world, env, service, day, seed if number == 0 else None))
            shown(number + 1)
    finally:
        await service.close()
    return found


async def _episode(world: World, env: RecEnv, service: Service, day: int, seed: int | None) -> Episode:
    observed, _ = env.reset(seed=seed)
    user = world.audience[observed["user"]].user
    played = [Playback(observed["track"], 1.0)]
    left, reward = False, 0.0
    while not left:
        track = await service.following(user, played, wall_ms())
        observed, time_heard, left, _, _ = env.step(track)
        played.append(Playback(track, float(time_heard)))
        reward += float(time_heard)
    await service.ended(user, played, wall_ms())
    return Episode(day, reward, len(played) - 1)


class _Progress:
    """A line on a terminal that counts the episodes; nothing elsewhere."""

    def __init__(self, day: int, episodes: int) -> None:
        self._day, self._episodes, self._shown = day, episodes, sys.stderr.isatty()

    def __call__(self, done: int) -> None:
        if self._shown and (done % 10 == 0 or done == self._episodes):
            end = "\n" if done == self._episodes else ""
            sys.stderr.write(f"\rday {self._day}: {done} of {self._episodes} episodes{end}")
            sys.stderr.flush()


def _another(day: int) -> bool:
    """Ask the terminal until it says y or n; no input is a no."""
    while True:
        sys.stderr.write(f"End of day {day}. Another day? (y/n) ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        answer = line.strip().lower()
        if not line or answer in {"y", "n"}:
            return answer == "y"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sim.run", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/env.yml"), help="default: %(default)s")
    parser.add_argument("--episodes", type=_count, default=100, help="a day, and a process; default: 100")
    modes = parser.add_subparsers(dest="mode", required=True)
    single = modes.add_parser("single", help="one process, day after day")
    single.add_argument("--recommender", choices=RECOMMENDERS, required=True)
    single.add_argument("--seed", type=int, default=42, help="default: 42")
    multi = modes.add_parser("multi", help="several processes ask the service, for one day")
    multi.add_argument("--processes", type=_count, default=2, help="default: 2")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
