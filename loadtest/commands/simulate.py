"""`reco simulate`: an audience that listens to what a service recommends, and leaves when it is bored."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtest.simulator.audience import USERS, Listener, draw_audience, read_audience
from loadtest.simulator.catalogue import EMBEDDINGS, TRACKS, Catalogue, read_catalogue
from loadtest.simulator.comparison import Effect, read_baseline, welch, worse
from loadtest.simulator.days import Day, Sitting
from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.figures import Figures, by_day, faults, table
from loadtest.simulator.generator import generate_catalogue
from loadtest.simulator.listening_log import write_log
from loadtest.simulator.simulation import AGENTS, PROTOCOLS, Target, live, protocol_of

HELP = "Simulate an audience against a service: session time, with a regression gate"

N_TRACKS, N_ARTISTS, N_USERS = 16_198, 3_300, 10_000
"""The course's numbers of tracks and users; an artist has five tracks in the mean."""
FELL, BAD_INPUT = 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--url", help="the service, e.g. http://127.0.0.1:5001")
    whom.add_argument("--agent", choices=AGENTS, help="no service: a simple rule, or you at the terminal")
    add("--sessions", type=_count, default=1000, metavar="N", help="sessions a day; default: 1000")
    add("--seed", type=_seed, default=0, metavar="S", help="of every draw; default: 0")
    add("--days", type=_count, default=1, metavar="D", help="days to live through; default: 1")
    add("--day", type=_count, default=1, metavar="D", help="number of the first day; default: 1")
    add("--ask", action="store_true", help="ask at the terminal before each further day (y/n)")
    add(
        "--from",
        dest="first_day",
        type=_date,
        metavar="DATE",
        help="date of day 1 on a simulated clock, which events then carry; default: the wall's clock",
    )
    add("--catalogue", type=Path, metavar="DIR", help=f"folder with {TRACKS}, {EMBEDDINGS} and maybe {USERS}")
    add("--tracks", type=Path, metavar="FILE", help="tracks, instead of the catalogue's")
    add("--embeddings", type=Path, metavar="FILE", help="embeddings, instead of the catalogue's")
    add("--users", type=Path, metavar="FILE", help="the audience; default: the catalogue's, or drawn by seed")
    add("--protocol", choices=("auto", *PROTOCOLS), default="auto", help="default: ask the service at /")
    add("--model", default="default", help="reco protocol: whom to ask; default: default")
    add("--k", type=_count, default=10, help="reco protocol: items to a slate; default: 10")
    add(
        "--view-from",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="reco protocol: a track left before that is reported as an impression, no view; default: 0",
    )
    add("--token", default=os.environ.get("RECO_TOKEN"), help="bearer token; default: RECO_TOKEN")
    add("--concurrency", type=_count, default=16, help="listeners at a time, a process; default: 16")
    add("--processes", type=_count, default=1, metavar="P", help="default: 1")
    add("--log", type=Path, metavar="FILE", help="write the sessions as a listening log (botify's keys)")
    add(
        "--baseline", type=Path, metavar="FILE", help="result to compare with: a file that ends with its JSON"
    )
    add(
        "--fail-below",
        type=float,
        metavar="R",
        help="exit 1 if time per session is significantly lower than the baseline's and below R times it",
    )


def run(args: argparse.Namespace) -> int:
    """Simulate; a table to stderr, one JSON line to stdout."""
    try:
        return _run(args)
    except SimulatorError as error:
        sys.stderr.write(f"reco: {error}\n")
        return BAD_INPUT


def _run(args: argparse.Namespace) -> int:
    if args.fail_below is not None and args.baseline is None:
        raise SimulatorError("--fail-below needs a --baseline")
    baseline = read_baseline(args.baseline) if args.baseline else None
    catalogue = _catalogue(args)
    audience = _audience(args, catalogue)
    target = _target(args)
    sittings: list[Sitting] = []
    for number in range(args.day, args.day + args.days):
        if number > args.day and args.ask and not _go_on(number):
            break
        day = Day(number, args.sessions, args.seed, args.first_day)
        sittings += live(
            day,
            audience,
            catalogue,
            target,
            concurrency=args.concurrency,
            processes=args.processes,
            on_sitting=_Progress(day),
        )
    if args.log:
        write_log(sittings, args.log)
    sys.stderr.write(table(sittings) + "\n")
    effect = welch(baseline, Figures.of(sittings).user_time_per_session) if baseline else None
    print(json.dumps(_result(args, target, sittings, effect)))
    return _verdict(sittings, effect, args.fail_below)


def _verdict(sittings: list[Sitting], effect: Effect | None, fail_below: float | None) -> int:
    broken = faults(sittings)
    code = 0
    for reason, count in broken.items():
        sys.stderr.write(f"reco: {count} of {len(sittings)} sessions broken off: {reason}\n")
        code = FELL
    if effect is not None:
        sys.stderr.write(f"time per session against the baseline: {effect}\n")
        if fail_below is not None and worse(effect, fail_below):
            sys.stderr.write(f"reco: people leave earlier: below {fail_below:g} of the baseline\n")
            code = FELL
    return code


def _result(
    args: argparse.Namespace, target: Target, sittings: list[Sitting], effect: Effect | None
) -> dict[str, Any]:
    figures = Figures.of(sittings)
    return {
        "target": target.agent or target.url,
        "protocol": None if target.agent else target.protocol,
        "model": target.model if target.url and target.protocol == "reco" else None,
        "seed": args.seed,
        **figures.as_json(),
        "faults": faults(sittings),
        "days": {day: of.as_json() for day, of in by_day(sittings).items()},
        "against_baseline": None if effect is None else effect.as_json(),
    }


def _target(args: argparse.Namespace) -> Target:
    if args.agent is not None:
        return Target(agent=args.agent)
    target = Target(args.url, model=args.model, k=args.k, view_from=args.view_from, token=args.token)
    spoken = asyncio.run(protocol_of(target))
    return replace(target, protocol=spoken if args.protocol == "auto" else args.protocol)


def _catalogue(args: argparse.Namespace) -> Catalogue:
    folder: Path | None = args.catalogue
    tracks = args.tracks or (folder and folder / TRACKS)
    embeddings = args.embeddings or (folder and folder / EMBEDDINGS)
    if tracks is None and embeddings is None:
        return generate_catalogue(N_TRACKS, N_ARTISTS, args.seed)
    if tracks is None or embeddings is None:
        raise SimulatorError("--tracks and --embeddings go together")
    return read_catalogue(tracks, embeddings)


def _audience(args: argparse.Namespace, catalogue: Catalogue) -> list[Listener]:
    path: Path | None = args.users
    if path is None and args.catalogue is not None and (args.catalogue / USERS).is_file():
        path = args.catalogue / USERS
    if path is not None:
        return read_audience(path, len(catalogue))
    return draw_audience(N_USERS, len(catalogue), args.seed)


class _Progress:
    """A line on a terminal that counts the sessions; nothing elsewhere."""

    def __init__(self, day: Day) -> None:
        self._day, self._done = day, 0
        self._shown = sys.stderr.isatty()

    def __call__(self, sitting: Sitting) -> None:  # noqa: ARG002 - counted, not read
        self._done += 1
        if not self._shown or (self._done % 50 and self._done != self._day.sessions):
            return
        end = "\n" if self._done == self._day.sessions else ""
        sys.stderr.write(f"\rday {self._day.day}: {self._done} of {self._day.sessions} sessions{end}")
        sys.stderr.flush()


def _go_on(day: int) -> bool:
    sys.stderr.write(f"Begin day {day}? (y/n) ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "y"


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share of 0 to 1")
    return share


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _date(text: str) -> int:
    try:
        day = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-01-31") from None
    return int(day.replace(tzinfo=day.tzinfo or dt.UTC).timestamp() * 1000)
