"""`reco simulate` against this service's own routes, over a real socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from running import TOKEN, listening, settings_for

from service.app import create_app

RECO = Path(sys.executable).with_name("reco")


def reco(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RECO, *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def simulate(
    artifacts: Path, *words: object, token: str = TOKEN, **settings: Any
) -> subprocess.CompletedProcess[str]:
    with listening(create_app(settings_for(artifacts, **settings))) as (host, port):
        return reco(
            "simulate", "--url", f"http://{host}:{port}", "--sessions", 20, "--seed", 1, "--token", token, *words
        )  # fmt: skip


def test_listens_come_as_views_the_last_of_a_session_as_last_and_each_names_its_answer(
    artifacts: Path, tmp_path: Path
) -> None:
    run = simulate(artifacts, "--from", "2026-01-01", events_dir=tmp_path / "events", history="memory")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["protocol"], result["model"], result["sessions"]) == ("reco", "default", 20)

    assert (
        reco("events", "export", "--events", tmp_path / "events", "--out", tmp_path / "e.parquet").returncode
        == 0
    )
    events = pl.read_parquet(tmp_path / "e.parquet").filter(pl.col("item_id").is_not_null())
    assert events.height == round(20 * result["tracks_per_session"]["mean"])
    assert events["value"].sum() == pytest.approx(20 * result["time_per_session"]["mean"])
    assert set(events["type"]) == {"view", "last"}
    assert events.filter(pl.col("type") == "last").height == 20
    assert events.filter(pl.col("request_id").is_null()).height == 20
    assert events.filter(pl.col("request_id").is_null())["value"].to_list() == [1.0] * 20


def test_a_track_left_early_can_be_reported_as_no_view(artifacts: Path, tmp_path: Path) -> None:
    run = simulate(artifacts, "--view-from", "0.5", events_dir=tmp_path / "events", history="memory")
    assert run.returncode == 0, run.stderr

    assert (
        reco("events", "export", "--events", tmp_path / "events", "--out", tmp_path / "e.parquet").returncode
        == 0
    )
    events = pl.read_parquet(tmp_path / "e.parquet").filter(pl.col("item_id").is_not_null())
    kinds = events.group_by("type").agg(
        pl.col("value").min().alias("least"), pl.col("value").max().alias("most")
    )
    by_kind = {row["type"]: row for row in kinds.to_dicts()}
    assert by_kind["view"]["least"] >= 0.5
    assert by_kind["impression"]["most"] < 0.5


@pytest.mark.parametrize(
    ("words", "token", "says"),
    [
        ((), TOKEN, "to /v1/events"),
        (("--protocol", "reco"), "wrong-token-of-nobody", "to /v1/events"),
    ],
)
def test_a_service_that_takes_no_events_is_named(
    artifacts: Path, words: tuple[str, ...], token: str, says: str
) -> None:
    run = simulate(artifacts, *words, token=token)

    assert run.returncode == 1
    assert says in run.stderr
    assert "20 of 20" in run.stderr


def test_a_model_that_is_not_there_is_named(artifacts: Path, tmp_path: Path) -> None:
    run = simulate(artifacts, "--model", "nobody", events_dir=tmp_path / "events")

    assert run.returncode == 1
    assert "status 404 to /reco" in run.stderr
