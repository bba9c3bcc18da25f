"""`reco experiment ope`: what another plan would have earned, from the log of one that explored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import orjson
from rich.table import Table

from models.analysis.explored import REWARDS, RewardModel, explored_slots
from models.analysis.log import opened
from models.analysis.ope import Estimate, Evaluation, best_of, evaluate
from models.analysis.target import of_file, of_plan
from models.commands.analysis_flags import add_events, positive, share, tell_damage
from models.evaluation.opening import model_of, open_published
from models.progress import console_of_people
from service.domain import AttributeCap, Exploration, Plan, Reranking
from service.errors import InputError

_SETTINGS = (
    "n_candidates", "epsilon", "temperature", "rerank", "relevance", "window", "cap", "attribute",
)  # fmt: skip
Method = Literal["mmr", "dpp", "calibrated"]
HELP = "Estimate what another plan would have earned, from logged propensities"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_events(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--plan",
        metavar="MODEL[,n_candidates=N][,epsilon=E|,temperature=T][,rerank=METHOD…]",
        help="another plan of the bundle in --artifacts",
    )
    target.add_argument(
        "--target-probabilities",
        type=Path,
        metavar="FILE",
        help="table of request_id, position (from 0), item_id, probability",
    )
    parser.add_argument(
        "--artifacts", type=Path, metavar="DIR", help="folder with a published bundle, for --plan"
    )
    parser.add_argument(
        "--reward", choices=REWARDS, default="click", help="what a place earns; default: %(default)s"
    )
    parser.add_argument(
        "--interaction",
        choices=("independent", "cascade"),
        default="independent",
        help="whether a place's reward depends on items above it (cascade); default: %(default)s",
    )
    parser.add_argument(
        "--clip", type=positive, default=10.0, metavar="W", help="largest weight; default: %(default)s"
    )
    parser.add_argument("--alpha", type=share, default=0.05, metavar="P", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Estimate; a table to stderr, one JSON object to stdout."""
    if args.plan is not None and args.artifacts is None:
        raise InputError("--plan needs --artifacts: the bundle whose plan it is")
    with opened(args.events) as log:
        explored = explored_slots(log.events, args.reward)
        model = RewardModel(explored.slots)
        if args.plan is None:
            target = of_file(args.target_probabilities, explored, model)
        else:
            plan, live = parsed_plan(args.plan), open_published(args.artifacts)
            model_of(live, plan.model)
            target = of_plan(plan, log.events, explored, model, live)
    found = evaluate(explored, target, interaction=args.interaction, clip=args.clip, alpha=args.alpha)
    console = console_of_people()
    console.print(_table(found, args.reward))
    for warning in found.weights.warnings:
        console.print(f"! {warning}", style="bold red", markup=False)
    tell_damage(log)
    print(orjson.dumps(_summary(found, args, explored.certain, explored.nameless)).decode())
    return 0


def parsed_plan(text: str) -> Plan:
    """Parse `als`, `als,n_candidates=50,epsilon=0.1`, `als,n_candidates=50,rerank=mmr,relevance=0.5,cap=artist:2`.

    Raises InputError saying which part is wrong.
    """
    model, *parts = text.split(",")
    given: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise InputError(f"--plan: {part!r}: must be a name, = and a value")
        if name not in _SETTINGS:
            raise InputError(f"--plan: no setting {name!r}: there are {', '.join(_SETTINGS)}")
        given[name] = value
    pool = _number(given, "n_candidates", 0.0)
    if not (pool.is_integer() and 0 <= pool <= 10_000):
        raise InputError(f"--plan: n_candidates must be a whole number up to 10000, not {pool:g}")
    exploration, reranking = _exploration(given), _reranking(given)
    if exploration is not None and not pool:
        raise InputError("--plan: exploration needs n_candidates: how many of the best may be shown")
    if reranking is not None and not pool:
        raise InputError("--plan: rerank needs n_candidates: how many of the best are put in order")
    if reranking is not None and exploration is not None and exploration.kind == "softmax":
        raise InputError("--plan: temperature orders by score again: rerank goes with epsilon")
    return Plan(model, int(pool), exploration, reranking)


def _exploration(given: Mapping[str, str]) -> Exploration | None:
    chosen = sorted(given.keys() & {"epsilon", "temperature"})
    if len(chosen) > 1:
        raise InputError("--plan: epsilon and temperature exclude each other")
    if not chosen:
        return None
    strength = _number(given, chosen[0], math.nan)
    if chosen == ["epsilon"]:
        if not 0 <= strength <= 1:
            raise InputError(f"--plan: epsilon must be from 0 to 1, not {strength:g}")
        return Exploration("epsilon", strength)
    if not (0.01 <= strength <= 100 and math.isfinite(strength)):
        raise InputError(f"--plan: temperature must be from 0.01 to 100, not {strength:g}")
    return Exploration("softmax", strength)


def _reranking(given: Mapping[str, str]) -> Reranking | None:
    method = given.get("rerank")
    if method is None:
        alone = sorted(given.keys() & {"relevance", "window", "cap", "attribute"})
        if alone:
            raise InputError(f"--plan: {alone[0]} goes with rerank")
        return None
    if method not in get_args(Method):
        raise InputError(f"--plan: rerank must be one of {', '.join(get_args(Method))}, not {method!r}")
    most = 0.99 if method == "dpp" else 1.0
    relevance = _number(given, "relevance", 0.7)
    if not 0 <= relevance <= most:
        raise InputError(f"--plan: relevance must be from 0 to {most:g}, not {relevance:g}")
    window = _number(given, "window", 10.0)
    if ("window" in given and method != "dpp") or not (window.is_integer() and 2 <= window <= 100):
        raise InputError("--plan: window is of rerank=dpp, a whole number from 2 to 100")
    if (method == "calibrated") != ("attribute" in given):
        raise InputError("--plan: rerank=calibrated needs attribute, and no other takes it")
    return Reranking(cast("Method", method), relevance, int(window), _cap(given), given.get("attribute", ""))


def _cap(given: Mapping[str, str]) -> AttributeCap | None:
    if "cap" not in given:
        return None
    attribute, _, most = given["cap"].rpartition(":")
    if not attribute or not (most.isascii() and most.isdigit() and int(most)):
        raise InputError(f"--plan: cap must be an attribute, : and a number of places, not {given['cap']!r}")
    return AttributeCap(attribute, int(most))


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(given.get(name, default))
    except ValueError:
        raise InputError(f"--plan: {name} must be a number, not {given[name]!r}") from None


def _table(found: Evaluation, reward: str) -> Table:
    table = Table(
        title=f"{reward} a slate: {found.slates:,} slates, {found.users:,} users; places {found.interaction}",
        title_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    table.add_column("estimate", no_wrap=True)
    for name in ("value", "lower", "upper", "to logged"):
        table.add_column(name, justify="right")

    def row(policy: str, one: Estimate) -> None:
        change = f"{100 * (one.value / found.logged.value - 1):+.1f}%" if found.logged.value else "-"
        table.add_row(policy, one.name, f"{one.value:.5g}", f"{one.lower:.5g}", f"{one.upper:.5g}", change)

    row("logged", found.logged)
    for one in found.estimates:
        row("target", one)
    w = found.weights
    table.caption = (
        f"weights: mean {w.mean:.3f} ± {w.mean_error:.3f} (must be 1), largest {w.largest:.1f}, none {w.none:.1%}, "
        f"clipped {w.clipped:.2%}; effective sample {w.effective:,.0f} of {w.places:,} places"
    )
    table.caption_justify = "left"
    return table


def _summary(found: Evaluation, args: argparse.Namespace, certain: int, nameless: int) -> dict[str, Any]:
    return {
        "target": args.plan if args.plan is not None else args.target_probabilities.name,
        "reward": args.reward,
        "interaction": found.interaction,
        "clip": found.clip,
        "slates": found.slates,
        "users": found.users,
        "left_out": {"certain": certain, "nameless": nameless},
        "logged": found.logged.as_json(),
        "estimates": {one.name: one.as_json() for one in found.estimates},
        "quote": best_of(found.estimates).name,
        "weights": found.weights.as_json(),
    }
