"""`make loop`: an audience listens, the service learns overnight, and they stay longer.

Day 0 has no service yet: any track is played, and what people did is logged. Every night: export the log, take what
people liked until the day's last fifth, build the candidates (each model, with each way to read a history), judge them
and what serves by the sittings of that last fifth, which none of them has seen (`loadtest.loop.choice`), and publish
the best under the running service unless it is significantly worse. Training sees the log and nothing else of the
simulation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from loadtest.loop.choice import Candidate, Order, Sitting, best_of, judged, orders_of, sittings_of
from loadtest.loop.programs import LoopError, Running, reco, serving
from loadtest.loop.report import DayReport, page, table
from loadtest.loop.training_data import (
    LIKED_FROM,
    heard_of_events,
    heard_of_listening_log,
    hold_out,
    likes_of,
)
from loadtest.simulator.comparison import welch
from loadtest.simulator.figures import Figure

FIRST_DAY = "2026-01-01"
"""Date of day 0, the simulator's first."""
SLATE = 20
MODELS = ("knn", "ease", "als", "transitions")
CONFIGS = tuple(Path(__file__).with_name(f"{name}.toml") for name in ("alike", "newest"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. folder: all that comes to be goes there. models, configs: the candidates, each with each."""

    folder: Path
    tracks: int
    artists: int
    users: int
    sessions: int
    days: int
    seed: int
    models: tuple[str, ...]
    configs: tuple[Path, ...]

    @property
    def audience(self) -> Path:
        """The simulated world. Only the simulator reads it."""
        return self.folder / "audience"

    @property
    def artifacts(self) -> Path:
        """The bundles that serve."""
        return self.folder / "artifacts"


def main(argv: list[str] | None = None) -> int:
    """Run the loop; a table to stderr, one JSON line to stdout. 0 if people stay longer on the last day, else 1."""
    plan = _plan(argv)
    try:
        return _loop(plan)
    except LoopError as error:
        sys.stderr.write(f"loop: {error}\n")
        return 1


def _loop(plan: Plan) -> int:
    shutil.rmtree(plan.folder, ignore_errors=True)
    size = ("--tracks", plan.tracks, "--artists", plan.artists, "--users", plan.users)
    reco("simulate", "catalogue", *size, "--seed", plan.seed, "--out", plan.audience)
    first = _day_without_a_service(plan)
    heard = heard_of_listening_log(plan.folder / "day0.json")
    first, serves = _night(plan, first, heard.clear(), heard, None)
    days = [first]
    assert serves is not None  # the first night publishes whatever is best
    _say(first)
    settings = {"RECO_EVENTS_DIR": str(plan.folder / "events"), "RECO_HISTORY": "memory"}
    with serving(plan.artifacts, plan.folder / "service.log", settings=settings) as service:
        for number in range(1, plan.days + 1):
            served = f"{serves} {service.bundle()}"
            report = _report(number, served, _simulate(plan, serves, number, service))
            exported = plan.folder / f"day{number}.parquet"
            reco("events", "export", "--events", plan.folder / "events", "--out", exported)
            # The export has all days with a service.
            today = heard_of_events(exported).filter(pl.col("timestamp") > heard["timestamp"].max())
            report = replace(report, likes=likes_of(pl.concat([heard, today])).height)
            if number < plan.days:
                report, chosen = _night(plan, report, heard, today, serves)
                heard = pl.concat([heard, today])
                if report.published is not None and chosen is not None:
                    serves = chosen
                    report = replace(report, reload_s=service.wait_for(report.published))
            days.append(report)
            _say(report)
    effect = welch(days[0].users, days[-1].users)
    page(days, effect, plan.folder / "report.html")
    sys.stderr.write(f"{table(days)}\nlast day against the first: {effect}\n{plan.folder / 'report.html'}\n")
    result = {"days": [day.as_json() for day in days], "effect": effect.as_json()}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if effect.lower > 0 else 1


def _night(
    plan: Plan, day: DayReport, before: pl.DataFrame, today: pl.DataFrame, serves: Candidate | None
) -> tuple[DayReport, Candidate | None]:
    """Learn from the day, judge, and publish the best candidate unless it is significantly worse than what serves."""
    learnt, begins = hold_out(today)
    known, all_of_it = pl.concat([before, learnt]), pl.concat([before, today])
    rows = all_of_it.select("message", "user", "track", "time", "timestamp").iter_rows()
    sittings = [sitting for sitting, at in sittings_of(rows, LIKED_FROM) if at >= begins]
    night = plan.folder / f"night{day.day}"
    bundles: dict[Path, str] = {}
    orders: dict[Candidate, Order] = {}
    for config in plan.configs:
        folder = night / config.stem
        bundles[config] = _build(plan, config, folder, likes_of(known))
        candidates = [Candidate(model, config) for model in plan.models]
        orders |= _judged(folder / "artifacts", candidates, sittings)
    chosen = best_of(orders)
    now = None if serves is None else _judged(plan.artifacts, [serves], sittings)[serves]
    day = replace(
        day,
        likes=likes_of(all_of_it).height,
        order_before=None if now is None else now.share,
        order_after=orders[chosen].share,
        candidates={str(candidate): order.as_json() for candidate, order in orders.items()},
    )
    if now is not None and orders[chosen].upper < now.share:
        return day, None
    _publish(plan, night / chosen.config.stem, bundles[chosen.config])
    return replace(day, published=bundles[chosen.config], chosen=str(chosen)), chosen


def _judged(
    artifacts: Path, candidates: Sequence[Candidate], sittings: Sequence[Sitting]
) -> dict[Candidate, Order]:
    """Serve a folder's bundle apart and let its models order the sittings."""
    with serving(artifacts, artifacts.parent / "judging.log", settings={}) as service:
        return {one: judged(sittings, orders_of(service, one.model)) for one in candidates}


def _day_without_a_service(plan: Plan) -> DayReport:
    log = plan.folder / "day0.json"
    result = reco(
        "simulate", "--agent", "random", "--catalogue", plan.audience, "--sessions", plan.sessions,
        "--seed", plan.seed, "--from", FIRST_DAY, "--log", log,
    )  # fmt: skip
    return _report(0, "any track", result)


def _simulate(plan: Plan, chosen: Candidate, day: int, service: Running) -> dict[str, Any]:
    return reco(
        "simulate", "--url", service.url, "--protocol", "reco", "--catalogue", plan.audience,
        "--sessions", plan.sessions, "--seed", plan.seed, "--day", day + 1, "--from", FIRST_DAY, "--k", SLATE,
        "--view-from", LIKED_FROM, "--model", chosen.model, env={"RECO_TOKEN": service.token},
    )  # fmt: skip


def _build(plan: Plan, config: Path, folder: Path, likes: pl.DataFrame) -> str:
    """Build all models with one configuration, apart from what serves; return the bundle's id."""
    (folder / "data").mkdir(parents=True)
    likes.write_parquet(folder / "data" / "interactions.parquet")
    built = reco(
        "build", "--data", folder / "data", "--out", folder / "artifacts", "--models", ",".join(plan.models),
        "--config", config, "--tune", "off", "--seed", plan.seed,
    )  # fmt: skip
    return str(built["bundle"])


def _publish(plan: Plan, folder: Path, bundle: str) -> None:
    bundles = plan.artifacts / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "artifacts" / "bundles" / bundle, bundles / bundle, dirs_exist_ok=True)
    reco("bundle", "publish", bundle, "--artifacts", plan.artifacts)


def _report(day: int, served: str, result: dict[str, Any]) -> DayReport:
    time, tracks, users = (
        Figure(float(figure["mean"]), float(figure["var"]), int(figure["n"]))
        for figure in (
            result[name] for name in ("time_per_session", "tracks_per_session", "user_time_per_session")
        )
    )
    return DayReport(day, served, int(result["sessions"]), time, tracks, users)


def _say(day: DayReport) -> None:
    night = "" if day.published is None else f"; published {day.chosen} {day.published}"
    sys.stderr.write(f"day {day.day} ({day.served}): time per session {day.time_per_session}{night}\n")


def _plan(argv: list[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="make loop", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("artifacts/loop"), help="default: artifacts/loop; emptied first")
    add("--tracks", type=int, default=2000)
    add("--artists", type=int, default=400)
    add("--users", type=int, default=1000)
    add("--sessions", type=int, default=3000, help="a day; default: 3000")
    add("--days", type=int, default=3, help="with the service; default: 3")
    add("--seed", type=int, default=1)
    add(
        "--models",
        type=_names,
        default=MODELS,
        metavar="M,M",
        help=f"candidates; default: {','.join(MODELS)}",
    )
    add(
        "--config",
        type=Path,
        action="append",
        dest="configs",
        metavar="FILE",
        help="settings of 'reco build' that each candidate is tried with, may be repeated; default: alike.toml and "
        "newest.toml beside the script",
    )
    args = vars(parser.parse_args(argv))
    return Plan(**{**args, "configs": tuple(args["configs"] or CONFIGS)})


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
