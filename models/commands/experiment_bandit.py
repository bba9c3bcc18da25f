"""`reco experiment bandit`: what an experiment's users would have cost less, had a bandit divided them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl
from rich.table import Table

from models.analysis.log import collected, opened
from models.analysis.users import IS_SLATE
from models.bandits.bandits import (
    DecayingEpsilonGreedy,
    EpsilonGreedy,
    GradientBandit,
    ThompsonSampling,
    Ucb1,
)
from models.bandits.play import Bandit, play
from models.commands.analysis_flags import add_events, tell_damage
from models.evaluation.files import at_least_one
from models.progress import console_of_people
from service.errors import InputError

HELP = "Let five bandits play an experiment's treatments, whose means are the log's: their regret"
_BANDITS: Mapping[str, Callable[[int, int], Bandit]] = {
    "epsilon-greedy .1": lambda arms, seed: EpsilonGreedy(arms, seed=seed),
    "epsilon 1/(1+.05n)": lambda arms, seed: DecayingEpsilonGreedy(arms, seed=seed),
    "UCB1": lambda arms, seed: Ucb1(arms, seed=seed),
    "gradient": lambda arms, seed: GradientBandit(arms, seed=seed),
    "Thompson": lambda arms, seed: ThompsonSampling(arms, seed=seed),
}
_EVEN = "even split"


@dataclass(frozen=True, slots=True)
class Arm:
    """A treatment: answers it gave, and the share of them that were acted on."""

    name: str
    answers: int
    mean: float


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_events(parser)
    parser.add_argument("--experiment", required=True, metavar="NAME", help="whose treatments are the arms")
    parser.add_argument(
        "--reward", choices=("click", "view", "purchase"), default="click",
        help="what an answer is acted on by; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=at_least_one, metavar="N", help="default: as many as the log's answers"
    )
    parser.add_argument("--repeats", type=at_least_one, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Play; a table to stderr, one JSON object to stdout."""
    with opened(args.events) as log:
        arms = arms_of(log.events, args.experiment, args.reward)
    rounds = args.rounds or sum(arm.answers for arm in arms)
    means = np.array([arm.mean for arm in arms])
    even = float((means.max() - means).mean() * rounds)
    found = {_EVEN: (even, 1 / len(arms))}
    for name, make in _BANDITS.items():
        games = [
            play(make(len(arms), args.seed + n), means, rounds, seed=args.seed + n)
            for n in range(args.repeats)
        ]
        regret = float(np.mean([game.regret[-1] for game in games]))
        found[name] = regret, float(np.mean([(game.arms == means.argmax()).mean() for game in games]))
    console_of_people().print(_table(arms, found, rounds, args))
    tell_damage(log)
    summary = {
        "experiment": args.experiment,
        "reward": args.reward,
        "rounds": rounds,
        "arms": [{"name": arm.name, "answers": arm.answers, "mean": arm.mean} for arm in arms],
        "regret": {name: {"regret": regret, "best_share": best} for name, (regret, best) in found.items()},
    }
    print(orjson.dumps(summary).decode())
    return 0


def arms_of(events: pl.LazyFrame, experiment: str, reward: str) -> list[Arm]:
    """Treatments of an experiment with the share of answers that were acted on, by name. Raises InputError."""
    acted = (
        events.filter(
            pl.col("type") == reward, pl.col("request_id").is_not_null(), pl.col("item_id").is_not_null()
        )
        .select("request_id", pl.lit(1.0).alias("acted"))
        .unique()
    )
    treatment = (
        pl.col("treatments").str.json_decode(pl.Struct({experiment: pl.String})).struct.field(experiment)
    )
    slates = (
        events.filter(IS_SLATE).select("request_id", treatment.alias("treatment")).drop_nulls("treatment")
    )
    rows = collected(
        slates.join(acted, on="request_id", how="left")
        .group_by("treatment")
        .agg(pl.len().alias("answers"), pl.col("acted").fill_null(0.0).mean().alias("mean"))
        .sort("treatment")
    )
    arms = [Arm(*row) for row in rows.iter_rows()]
    if len(arms) < 2:
        raise InputError(
            f"--experiment {experiment}: the log has {len(arms)} of its treatments, not two or more"
        )
    return arms


def _table(
    arms: list[Arm], found: Mapping[str, tuple[float, float]], rounds: int, args: argparse.Namespace
) -> Table:
    told = ", ".join(f"{arm.name} {arm.mean:.4f}" for arm in arms)
    table = Table(title=f"{args.reward} an answer: {told}; {rounds:,} rounds", title_justify="left")
    for name in ("divided by", f"{args.reward}s lost", "of the even split's", "rounds on the best"):
        table.add_column(name, justify="left" if name == "divided by" else "right")
    even = found[_EVEN][0]
    for name, (regret, best) in found.items():
        table.add_row(name, f"{regret:.1f}", f"{regret / even:.0%}" if even else "-", f"{best:.0%}")
    table.caption = (
        "as if the log's means were the truth and stood still; a bandit's data give no unbiased effect"
    )
    table.caption_justify = "left"
    return table
