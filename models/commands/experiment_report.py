"""`reco experiment report`: what the treatments of an experiment changed."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from models.analysis.declared import Declared, read_declared
from models.analysis.experiment import Choices, Experiment, analyse
from models.analysis.experiment_page import render
from models.analysis.experiment_tables import guardrail_table, metric_table
from models.analysis.log import Log, opened
from models.analysis.users import assignments, control_first
from models.commands.analysis_flags import add_events, moment, positive, share, tell_damage
from models.evaluation.files import at_least_one, write_whole
from models.progress import console_of_people
from service.errors import InputError

HELP = "Compare an experiment's treatments with its control: table, JSON line, HTML report"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    chosen = Choices()
    add_events(parser)
    parser.add_argument("--experiment", metavar="NAME", help="one experiment; default: all in the log")
    parser.add_argument(
        "--experiments",
        type=Path,
        metavar="FILE",
        help="their declaration (TOML): split, start and end are taken from it",
    )
    parser.add_argument(
        "--control", metavar="TREATMENT", help="default: as declared, else C or control, else the first"
    )
    parser.add_argument(
        "--start",
        type=moment,
        metavar="TIME",
        help="when it began (ISO 8601, UTC); what is earlier is the users' past; default: its first record",
    )
    parser.add_argument("--end", type=moment, metavar="TIME", help="leave out what is from then on")
    parser.add_argument("--alpha", type=share, default=chosen.alpha, metavar="P", help="default: %(default)s")
    parser.add_argument("--power", type=share, default=chosen.power, metavar="P", help="default: %(default)s")
    parser.add_argument(
        "--detect",
        type=positive,
        default=chosen.detect,
        metavar="PERCENT",
        help="difference to find, for the required users; default: %(default)s",
    )
    parser.add_argument(
        "--planned",
        type=at_least_one,
        default=chosen.planned,
        metavar="N",
        help="users in two groups at which the sequential interval is narrowest; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=chosen.seed, metavar="N", help="of the bootstrap")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a report with plots, one self-contained page"
    )


def run(args: argparse.Namespace) -> int:
    """Report; tables to stderr, one JSON object to stdout."""
    choices = Choices(args.alpha, args.power, args.detect, args.planned, seed=args.seed)
    declared = {} if args.experiments is None else read_declared(args.experiments)
    with opened(args.events) as log:
        found = _experiments(log, args, choices, declared)
    console = console_of_people()
    for one in found:
        console.print(metric_table(one))
        console.print(guardrail_table(one))
        for alarm in one.alarms:
            console.print(f"! {alarm}", style="bold red", markup=False)
    if args.html:
        write_whole(args.html, render(found, choices, args.events.name).encode())
        console.print(f"report: {args.html}", markup=False)
    tell_damage(log)
    print(orjson.dumps({"experiments": [one.as_json() for one in found]}).decode())
    sys.stdout.flush()
    return 0


def _experiments(
    log: Log, args: argparse.Namespace, choices: Choices, declared: dict[str, Declared]
) -> list[Experiment]:
    known = assignments(log.events)
    if not known:
        raise InputError(f"--events: {args.events} has no records with treatments: no experiment ran")
    if args.experiment is not None and args.experiment not in known:
        raise InputError(f"--experiment: the log has no {args.experiment!r}; it has {', '.join(known)}")
    found = []
    for name in [args.experiment] if args.experiment else list(known):
        told = declared.get(name, Declared())
        control = args.control or told.control
        if control is not None and control not in known[name].treatments:
            raise InputError(
                f"experiment {name}: the log has no control {control!r}; it has {', '.join(known[name].treatments)}"
            )
        treatments = control_first(known[name].treatments, control)
        found.append(
            analyse(
                log.events,
                replace(known[name], treatments=treatments),
                choices,
                weights=told.weights,
                began_ms=told.began_ms if args.start is None else _milliseconds(args.start),
                ended_ms=told.ended_ms if args.end is None else _milliseconds(args.end),
            )
        )
    return found


def _milliseconds(time: datetime) -> int:
    return int(time.astimezone(UTC).timestamp() * 1000)
