"""`make bench-audience`: does what was learnt from a log please people more than another track of the same artist?

For each seed: a world, a log of any tracks played to its people, a bundle built from that log alone, and an experiment
on the botify profile: StickyArtist against a model of the bundle, after it one against itself. Read from the service's
own log by `reco experiment report`: users' mean time per session, Welch's interval at 95%. `report.html` in the folder
says it on one page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from loadtest.loop.one_page import write_page
from loadtest.loop.programs import LoopError, reco, serving
from loadtest.loop.training_data import heard_of_listening_log, likes_of

METRIC = "mean_time_per_session"
EXPERIMENT, AA = "AUDIENCE", "AA"


@dataclass(frozen=True, slots=True)
class Bench:
    """sessions: of the experiment. logged: of the log that is learnt from."""

    folder: Path
    tracks: int
    artists: int
    users: int
    logged: int
    sessions: int
    seeds: tuple[int, ...]
    model: str
    tune: str


def main(argv: list[str] | None = None) -> int:
    """Run it; a table to stderr, one JSON line to stdout.

    0 if on every seed the model is better and the A/A shows no difference, both at 95%; else 1.
    """
    bench = _bench(argv)
    shutil.rmtree(bench.folder, ignore_errors=True)
    try:
        results = {seed: _run(bench, seed) for seed in bench.seeds}
    except LoopError as error:
        sys.stderr.write(f"bench-audience: {error}\n")
        return 1
    for seed, result in results.items():
        for name, effect in result.items():
            sys.stderr.write(f"seed {seed}  {name:<8}  {_said(effect)}\n")
    holds = all(
        result[EXPERIMENT]["lower"] > 0 and not result[AA]["significant"] for result in results.values()
    )
    page = bench.folder / "report.html"
    write_page(results, _facts(bench), page, experiment=EXPERIMENT, aa=AA)
    sys.stderr.write(f"{page}\n")
    sys.stdout.write(json.dumps({"model": bench.model, "seeds": results, "holds": holds}) + "\n")
    return 0 if holds else 1


def _facts(bench: Bench) -> dict[str, Any]:
    return {
        "model": f"{bench.model}, settings searched on the log's own validation split (--tune {bench.tune})",
        "world": f"{bench.tracks:,} tracks, {bench.artists:,} artists, {bench.users:,} listeners",
        "learnt from": f"{bench.logged:,} sessions to which any tracks were played",
        "experiment": f"{bench.sessions:,} sessions, another day",
        "again": f"make bench-audience ARGS='--model {bench.model} --seeds {','.join(map(str, bench.seeds))}'",
    }


def _run(bench: Bench, seed: int) -> dict[str, dict[str, Any]]:
    folder = bench.folder / f"seed{seed}"
    world = folder / "audience"
    size = ("--tracks", bench.tracks, "--artists", bench.artists, "--users", bench.users)
    reco("simulate", "catalogue", *size, "--seed", seed, "--out", world)
    _learn(bench, seed, world, folder)
    sticky, model = (
        '{ recommender = "sticky_artist" }',
        f'{{ recommender = "model", model = "{bench.model}" }}',
    )
    treatments = {AA: (sticky, sticky), EXPERIMENT: (sticky, model)}
    (folder / "experiments.toml").write_text(
        "".join(f"[{name}]\ntreatments = [{', '.join(both)}]\n" for name, both in treatments.items()), "utf-8"
    )
    return {name: _experiment(bench, seed, folder, name) for name in treatments}


def _experiment(bench: Bench, seed: int, folder: Path, name: str) -> dict[str, Any]:
    """Serve one experiment and let the audience take part: one at a time, so that the service's chance repeats too."""
    log = folder / f"{name}.log" / "data.json"
    settings = {
        "RECO_BOTIFY_EXPERIMENTS": str((folder / "experiments.toml").resolve()),
        "RECO_BOTIFY_RUN": name,
        "RECO_BOTIFY_LOG": str(log.resolve()),
        "RECO_BOTIFY_SEED": str(seed),
    }
    said = folder / f"{name}.service.log"
    with serving(folder / "artifacts", said, "--profile", "botify", settings=settings) as service:
        reco(
            "simulate", "--url", service.url, "--protocol", "botify", "--catalogue", folder / "audience",
            "--sessions", bench.sessions, "--seed", seed, "--day", 2, "--concurrency", 1,
        )  # fmt: skip
    return _effect(log, name)


def _learn(bench: Bench, seed: int, world: Path, folder: Path) -> None:
    """Play any tracks, log, and build from the likes of the log and from what a catalogue shows: artist and title."""
    log, data = folder / "any-track.json", folder / "data"
    reco(
        "simulate", "--agent", "random", "--catalogue", world, "--sessions", bench.logged, "--seed", seed,
        "--from", "2026-01-01", "--log", log,
    )  # fmt: skip
    data.mkdir()
    likes_of(heard_of_listening_log(log)).write_parquet(data / "interactions.parquet")
    pl.read_ndjson(world / "tracks.json").rename({"track": "item_id"}).write_csv(data / "items.csv")
    reco(
        "build", "--data", data, "--out", folder / "artifacts", "--models", bench.model, "--seed", seed,
        "--tune", bench.tune,
    )  # fmt: skip


def _effect(log: Path, experiment: str) -> dict[str, Any]:
    report = reco("experiment", "report", "--events", log, "--experiment", experiment)
    metrics = report["experiments"][0]["metrics"]
    (found,) = (metric for metric in metrics if metric["metric"] == METRIC)
    kept = ("control_mean", "treatment_mean", "effect", "lower", "upper", "p", "significant", "users")
    return {key: found[key] for key in kept}


def _said(effect: dict[str, Any]) -> str:
    return (
        f"{effect['control_mean']:.3f} -> {effect['treatment_mean']:.3f}: {effect['effect']:+.1f}% "
        f"[{effect['lower']:+.1f}%, {effect['upper']:+.1f}%], p = {effect['p']:.2g}"
    )


def _bench(argv: list[str] | None) -> Bench:
    parser = argparse.ArgumentParser(prog="make bench-audience", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--folder",
        type=Path,
        default=Path("artifacts/audience"),
        help="default: artifacts/audience; emptied first",
    )
    add("--tracks", type=int, default=2000)
    add("--artists", type=int, default=400)
    add("--users", type=int, default=2000)
    add("--logged", type=int, default=12_000, help="sessions in the log that is learnt from; default: 12000")
    add("--sessions", type=int, default=6000, help="sessions of the experiment; default: 6000")
    add("--seeds", type=_seeds, default=(1, 2), metavar="S,S", help="default: 1,2")
    add("--model", default="knn", help="default: knn")
    add("--tune", default="quick", choices=("off", "quick", "full"), help="default: quick")
    return Bench(**vars(parser.parse_args(argv)))


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(seed) for seed in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
