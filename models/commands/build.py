"""`reco build`: from raw interactions to a published bundle."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import orjson

from models.build.build import Order, build
from models.build.recipes import RECIPES
from models.build.second_stage import NAME, Learned, write_report
from models.build.settings import BuildSettings, read_settings
from models.build.tables import avatars_table, models_table, ranker_table, steps_table
from models.build.tuning import Trial
from models.commands.data_flags import add_data_flags, columns_of
from models.progress import CONSOLE, Ticker
from models.towers.checkpoint_folder import checkpoints_in

MODELS = (*RECIPES, NAME)
HELP = "Build and publish a bundle: read, split, tune, validate, refit, index"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_data_flags(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="ARTIFACTS", help="folder of bundles to add to"
    )
    parser.add_argument(
        "--models",
        type=_names,
        metavar="M,M",
        help=f"models to hold besides popular: {', '.join(MODELS)}; default: all that the data supports but "
        f"{', '.join(name for name, recipe in RECIPES.items() if recipe.on_request)}",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML with settings by model (not tuned then), columns, reader, avatars",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--tune",
        choices=("off", "quick", "full"),
        default="quick",
        help="how far to search settings on the validation split; default: quick",
    )
    parser.add_argument(
        "--index",
        choices=("auto", "exact", "hnsw", "ivf", "none"),
        default="auto",
        help="auto: measure and choose; exact, hnsw or ivf: serve that; none: exact, without an index; default: auto",
    )
    parser.add_argument(
        "--minutes",
        type=_positive,
        metavar="N",
        help="about how long the whole may take: searches end early and towers train less; default: no limit",
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FOLDER",
        help="keep what towers have learned here after each epoch, and take it up in a build that is run again",
    )
    parser.add_argument(
        "--ranker-report",
        type=Path,
        metavar="FILE",
        help="write an HTML page of what the second stage listens to (SHAP)",
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="write the bundle, leave the pointer as it is"
    )


def run(args: argparse.Namespace) -> int:
    """Build; tables to stderr, one JSON line to stdout."""
    settings = read_settings(args.config) if args.config else BuildSettings()
    order = Order(
        data=args.data,
        out=args.out,
        models=args.models,
        configs=settings.configs,
        seed=args.seed,
        effort=args.tune,
        reader=args.reader or settings.reader or "auto",
        columns={**settings.columns, **columns_of(args)},
        avatars=settings.avatars,
        index=args.index,
        publish=not args.no_publish,
        minutes=args.minutes,
    )
    return carried_out(order, args.checkpoints, ranker_report=args.ranker_report)


def carried_out(order: Order, checkpoints: Path | None, *, ranker_report: Path | None = None) -> int:
    """Build; tables to stderr, one JSON line to stdout."""
    with Ticker("trials") as ticker:
        best: dict[str, float] = {}

        def on_trial(name: str, trial: Trial[Any]) -> None:
            best[name] = max(best.get(name, 0.0), trial.score)
            ticker.tick(f"tune {name}: best NDCG@10 {best[name]:.4f}")

        with checkpoints_in(checkpoints):
            built = build(order, on_trial=on_trial)
    if built.evaluations:
        CONSOLE.print(models_table(built))
    if built.avatars:
        CONSOLE.print(avatars_table(built))
    if isinstance(built.ranker, Learned):
        CONSOLE.print(ranker_table(built.ranker))
        if ranker_report is not None:
            write_report(built.ranker, ranker_report)
    CONSOLE.print(steps_table(built))
    print(orjson.dumps(built.as_json()).decode())
    return 0


def _positive(text: str) -> float:
    minutes = float(text)  # argparse tells of what is no number
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"minutes above 0, not {text}")
    return minutes


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in MODELS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"no such model {unknown[0] if unknown else text!r} (known: {', '.join(MODELS)})"
        )
    return names
