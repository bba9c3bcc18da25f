"""`reco tune`: search a model's settings and write them for `reco build --config`."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from models.build.build import chosen_models
from models.build.recipes import RECIPES
from models.build.settings import settings_text, write_settings
from models.build.tables import trials_table
from models.build.threads import threads_for
from models.build.tune import tune, tuning_split
from models.build.tuning import Trial
from models.commands.data_flags import add_data_flags, columns_of
from models.data.read import read_dataset
from models.data.splits import validation_split
from models.progress import CONSOLE, Ticker
from service.errors import InputError

HELP = "Search a model's settings on the validation split; write TOML for 'reco build --config'"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_data_flags(parser)
    parser.add_argument("--model", required=True, choices=tuple(RECIPES), help="which model")
    parser.add_argument("--minutes", type=_minutes, default=5.0, metavar="N", help="time limit; default: 5")
    parser.add_argument(
        "--search", choices=("sample", "climb"), default="sample",
        help="sample: Optuna's TPE over the model's axes until the time is up; climb: step by step; default: sample",
    )  # fmt: skip
    parser.add_argument(
        "--journal", type=Path, metavar="FILE",
        help="keep every trial here, as lines of JSON, and go on from what is in it (sample only)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="TOML to write the best settings into; other sections stay"
    )


def run(args: argparse.Namespace) -> int:
    """Search; table to stderr, one JSON line to stdout."""
    began = time.perf_counter()
    dataset = read_dataset(args.data, reader=args.reader or "auto", columns=columns_of(args), progress=True)
    chosen_models(dataset, [args.model])
    split = tuning_split(args.model, dataset, validation_split(dataset, seed=args.seed), seed=args.seed)
    best = 0.0
    with Ticker("trials") as ticker:

        def on_trial(trial: Trial[Any]) -> None:
            nonlocal best
            best = max(best, trial.score)
            ticker.tick(f"tune {args.model}: best NDCG@10 {best:.4f}")

        seconds = args.minutes * 60
        with threads_for(len(dataset)):
            found = tune(
                args.model, split, "full", seed=args.seed, seconds=seconds, search=args.search,
                journal=args.journal, on_trial=on_trial,
            )  # fmt: skip
    if not found.trials:
        raise InputError(f"{args.data}: no user has events to hold out: there is nothing to tune on")
    CONSOLE.print(trials_table(args.model, found.trials))
    CONSOLE.print(settings_text({args.model: found.config}), markup=False, highlight=False)
    if args.out:
        write_settings(args.out, {args.model: found.config})
        CONSOLE.print(f"settings: {args.out}")
    summary = {
        "model": args.model,
        "config": asdict(found.config),
        "metrics": {"NDCG@10": round(found.score, 6)},
        "trials": len(found.trials),
        "seconds": round(time.perf_counter() - began, 2),
        "out": str(args.out) if args.out else None,
    }
    print(orjson.dumps(summary).decode())
    return 0


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not minutes > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, found {text!r}")
    return minutes
