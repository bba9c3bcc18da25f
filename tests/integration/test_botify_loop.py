"""From listening logs to a model that listeners stay longer with than with another track of the same artist."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_ind
from served import served

from service import cli

LOG = '{"message":"next","timestamp":%d,"user":7,"track":5,"time":%s,"latency":0.1,"recommendation":0}\n'
EXPERIMENTS = """
[AA]
split = 2

[ML]
treatments = [{ recommender = "sticky_artist" }, { recommender = "model", model = "als" }]
"""


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """Run a command that must succeed; its last line."""
    assert cli.main([*map(str, words)]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary


def test_logs_of_several_services_become_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second.json"
    first.mkdir()
    start = 1_700_000_000_000
    for name, at, time in (("data.json", 9, 0.75), ("data.json.1", 5, 1), ("data.json.10", 1, 0.5)):
        (first / name).write_text(LOG % (start + at, time) + LOG % (start + at, 0.4))
    (first / "data.json.2.gz").write_bytes(gzip.compress((LOG % (start + 3, 0.25)).encode()))
    (first / "data.json.lock").write_text("")
    second.write_text(LOG % (start + 4, 0.6))
    (tmp_path / "tracks.json").write_text(
        '{"track": 5, "artist": "A", "title": "T", "recommendations": [1]}\n'
    )
    out = tmp_path / "out"
    summary = run(
        capsys, "botify", "data", "--log", first, second, "--tracks", tmp_path / "tracks.json", "--out", out
    )
    assert (summary["files"], summary["listens"], summary["liked"], summary["users"]) == (5, 8, 4, 1)
    table = pl.read_parquet(out / "interactions.parquet")
    assert table.columns == ["user_id", "item_id", "weight", "timestamp"]
    assert table["weight"].to_list() == [0.5, 0.6, 1.0, 0.75]
    assert table["timestamp"].dt.epoch("ms").to_list() == [start + at for at in (1, 4, 5, 9)]
    items = pl.read_parquet(out / "items.parquet").rows(named=True)
    assert items == [{"item_id": 5, "artist": "A", "title": "T"}]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--log", "{0}/nowhere"], "no log there"),
        (["--log", "{0}/a.json", "{0}/a.json"], "given twice"),
        (["--log", "{0}/a.json", "--liked-from", "2"], "--liked-from 2.0"),
        (["--log", "{0}/a.json", "--liked-from", "0.9"], "none of 1 listens"),
        (["--log", "{0}/bad.json"], "bad.json, row 2"),
        (["--log", "{0}/a.json", "--tracks", "{0}/bad.json"], "column 'track'"),
    ],
)
def test_logs_that_make_no_data_are_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (tmp_path / "a.json").write_text(LOG % (1_700_000_000_000, 0.5))
    (tmp_path / "bad.json").write_text(LOG % (1_700_000_000_000, 0.5) + '{"track": "x"}\n')
    arguments = [word.format(tmp_path) for word in words]
    assert cli.main(["botify", "data", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err


def user_means(log: Path, experiment: str) -> dict[str, list[float]]:
    """Treatment -> each user's mean time a session; sessions that no `last` closed are left out."""
    time: dict[int, float] = defaultdict(float)
    sessions: dict[tuple[str, int], list[float]] = defaultdict(list)
    for text in log.read_text().splitlines():
        line = json.loads(text)
        user = line["user"]
        time[user] += line["time"]
        if line["message"] == "last":
            sessions[line["experiments"][experiment], user].append(time.pop(user))
    by_treatment: dict[str, list[float]] = defaultdict(list)
    for (treatment, _), lengths in sessions.items():
        by_treatment[treatment].append(float(np.mean(lengths)))
    return by_treatment


@pytest.mark.parametrize("seed", [1, 2])
def test_a_model_of_the_log_holds_listeners_longer_than_the_same_artist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """Nothing of the simulated world reaches training but the log of a day on which any track was played."""
    world, data, artifacts = tmp_path / "world", tmp_path / "data", tmp_path / "artifacts"
    size = ("--tracks", 600, "--artists", 120, "--users", 300)
    assert cli.main(["simulate", "catalogue", *map(str, size), "--seed", str(seed), "--out", str(world)]) == 0
    before = tmp_path / "data.json"
    day_0 = ("--sessions", 3000, "--seed", seed, "--log", before)
    run(capsys, "simulate", "--agent", "random", "--catalogue", world, *day_0)
    run(capsys, "botify", "data", "--log", before, "--tracks", world / "tracks.json", "--out", data)
    run(
        capsys,
        "build",
        "--data",
        data,
        "--out",
        artifacts,
        "--models",
        "als",
        "--tune",
        "off",
        "--seed",
        seed,
    )
    (tmp_path / "experiments.toml").write_text(EXPERIMENTS)
    env = {
        "RECO_BOTIFY_EXPERIMENTS": str(tmp_path / "experiments.toml"),
        "RECO_BOTIFY_SEED": str(seed),
        "RECO_ACCESS_LOG": "false",
    }
    flags = ("--profile", "botify", "--workers", "1")
    with served(artifacts, tmp_path, *flags, env=env) as service:
        asked = ("--url", service.url, "--catalogue", world, "--sessions", 1200, "--seed", seed + 10)
        result = run(capsys, "simulate", *asked)
        assert service.stop() == 0
    assert (result["protocol"], result["sessions"]) == ("botify", 1200)
    log = tmp_path / "log" / "data.json"
    times = user_means(log, "ML")
    assert np.mean(times["T1"]) > 1.1 * np.mean(times["C"])
    assert ttest_ind(times["T1"], times["C"], equal_var=False).pvalue < 0.05
    same = user_means(log, "AA")
    assert ttest_ind(same["T1"], same["C"], equal_var=False).pvalue > 0.05
