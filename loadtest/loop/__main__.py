"""`make loop`: an audience listens, the service learns overnight, and they stay longer.

Day 0 has no service yet: any track is played, and what people did is logged. Every night: export the log, take what
people liked, build a bundle, let it and the serving one be judged by the day's last likes that neither has seen, and
unless the new one is worse publish it under the running service. Training sees the log and nothing else of the
simulation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from loadtest.loop.programs import LoopError, Running, reco, serving
from loadtest.loop.report import DayReport, page, table
from loadtest.loop.training_data import (
    LIKED_FROM,
    hold_out,
    judging_pairs,
    likes_of_events,
    likes_of_listening_log,
)
from loadtest.simulator.comparison import welch
from loadtest.simulator.figures import Figure

FIRST_DAY = "2026-01-01"
"""Date of day 0, the simulator's first."""
SLATE = 20
CONFIG = Path(__file__).with_name("loop.toml")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. folder: everything that comes to be goes there. models, config: what a night builds."""

    folder: Path
    tracks: int
    artists: int
    users: int
    sessions: int
    days: int
    seed: int
    models: str
    config: Path

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
    days = [_day_without_a_service(plan)]
    likes = likes_of_listening_log(plan.folder / "day0.json")
    built = _build(plan, 0, likes)
    _publish(plan, built)
    days[0] = replace(days[0], likes=likes.height, published=built)
    _say(days[0])
    settings = {"RECO_EVENTS_DIR": str(plan.folder / "events"), "RECO_HISTORY": "memory"}
    with serving(plan.artifacts, plan.folder / "service.log", settings=settings) as service:
        before_service = likes
        for number in range(1, plan.days + 1):
            served = service.bundle()
            result = _simulate(plan, number, service)
            exported = plan.folder / f"day{number}.parquet"
            reco("events", "export", "--events", plan.folder / "events", "--out", exported)
            known, likes = likes, pl.concat([before_service, likes_of_events(exported)])
            report = _report(number, served, result, likes.height)
            if number < plan.days:
                report = _night(plan, report, service, known, likes)
            days.append(report)
            _say(report)
    effect = welch(days[0].users, days[-1].users)
    page(days, effect, plan.folder / "report.html")
    sys.stderr.write(f"{table(days)}\nlast day against the first: {effect}\n{plan.folder / 'report.html'}\n")
    result = {"days": [day.as_json() for day in days], "effect": effect.as_json()}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if effect.lower > 0 else 1


def _night(
    plan: Plan, day: DayReport, service: Running, known: pl.DataFrame, likes: pl.DataFrame
) -> DayReport:
    """Learn from the day, judge, and publish unless what was learnt is significantly worse."""
    learnt, latest = hold_out(likes.slice(known.height))
    train = pl.concat([known, learnt])
    test = plan.folder / f"night{day.day}" / "test.csv"
    built = _build(plan, day.day, train)
    judging_pairs(latest, train).write_csv(test)
    before, _ = _evaluated(plan.artifacts, test)
    after, at_best = _evaluated(plan.folder / f"night{day.day}" / "artifacts", test)
    day = replace(day, ndcg_before=before, ndcg_after=after)
    if at_best < before:
        return day
    _publish(plan, built, day.day)
    return replace(day, published=built, reload_s=service.wait_for(built))


def _day_without_a_service(plan: Plan) -> DayReport:
    log = plan.folder / "day0.json"
    result = reco(
        "simulate", "--agent", "random", "--catalogue", plan.audience, "--sessions", plan.sessions,
        "--seed", plan.seed, "--from", FIRST_DAY, "--log", log,
    )  # fmt: skip
    return _report(0, "any track", result, 0)


def _simulate(plan: Plan, day: int, service: Running) -> dict[str, Any]:
    return reco(
        "simulate", "--url", service.url, "--protocol", "reco", "--catalogue", plan.audience,
        "--sessions", plan.sessions, "--seed", plan.seed, "--day", day + 1, "--from", FIRST_DAY, "--k", SLATE,
        "--view-from", LIKED_FROM, env={"RECO_TOKEN": service.token},
    )  # fmt: skip


def _build(plan: Plan, night: int, likes: pl.DataFrame) -> str:
    """Build apart from what serves; return the bundle's id."""
    folder = plan.folder / f"night{night}"
    (folder / "data").mkdir(parents=True)
    likes.drop("organic").write_parquet(folder / "data" / "interactions.parquet")
    built = reco(
        "build", "--data", folder / "data", "--out", folder / "artifacts", "--models", plan.models,
        "--config", plan.config, "--seed", plan.seed,
    )  # fmt: skip
    return str(built["bundle"])


def _publish(plan: Plan, bundle: str, night: int = 0) -> None:
    bundles = plan.artifacts / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    shutil.copytree(plan.folder / f"night{night}" / "artifacts" / "bundles" / bundle, bundles / bundle)
    reco("bundle", "publish", bundle, "--artifacts", plan.artifacts)


def _report(day: int, served: str, result: dict[str, Any], likes: int) -> DayReport:
    time, tracks, users = (
        Figure(float(figure["mean"]), float(figure["var"]), int(figure["n"]))
        for figure in (
            result[name] for name in ("time_per_session", "tracks_per_session", "user_time_per_session")
        )
    )
    return DayReport(day, served, int(result["sessions"]), time, tracks, users, likes)


def _evaluated(artifacts: Path, test: Path) -> tuple[float, float]:
    """NDCG@10 of what is published there, and the upper end of its 95% interval."""
    result = reco("evaluate", "--artifacts", artifacts, "--test", test, "--model", "default")
    return float(result["NDCG@10"]), float(result["ci"]["NDCG@10"][1])


def _say(day: DayReport) -> None:
    night = "" if day.published is None else f"; published {day.published}"
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
    add("--models", default="knn", help="what a night builds; default: knn")
    add(
        "--config",
        type=Path,
        default=CONFIG,
        help="settings of 'reco build'; default: those beside the script",
    )
    return Plan(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
