"""The loop whole, small: people stay longer after the service has learnt from their log alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from loadtest import loop

NEWEST = Path(loop.__file__).with_name("newest.toml")
SMALL = (
    "--tracks", "1000", "--artists", "200", "--users", "300", "--sessions", "700", "--days", "2", "--seed", "1",
    "--models", "knn,als", "--config", str(NEWEST),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop") / "loop"
    run = subprocess.run(
        [sys.executable, "-m", "loadtest.loop", "--folder", folder, *SMALL],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (folder / "result.json").write_text(run.stdout)
    return folder


def test_people_stay_longer_once_the_service_has_learnt(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())

    assert [day["day"] for day in result["days"]] == [0, 1, 2]
    assert result["effect"]["lower"] > 0
    assert (folder / "report.html").stat().st_size > 1000


def test_a_new_bundle_was_published_under_the_running_service(folder: Path) -> None:
    before, first, second = json.loads((folder / "result.json").read_text())["days"]

    assert first["served"] == f"{before['chosen']} {before['published']}"
    assert second["served"] == f"{first['chosen']} {first['published']}" != first["served"]
    assert first["reload_s"] >= 0
    assert 0 <= first["order_before"] <= 1


def test_the_best_candidate_is_what_is_served(folder: Path) -> None:
    for day in json.loads((folder / "result.json").read_text())["days"][:2]:
        shares = {name: order["share"] for name, order in day["candidates"].items()}
        assert set(shares) == {"knn/newest", "als/newest"}
        assert day["chosen"] == max(shares, key=shares.__getitem__)
        assert day["order_after"] == shares[day["chosen"]] > 0.5


def test_every_listen_is_in_the_log_once(folder: Path) -> None:
    days = json.loads((folder / "result.json").read_text())["days"][1:]
    events = pl.read_parquet(folder / "day2.parquet").filter(pl.col("item_id").is_not_null())

    assert events.height == sum(round(day["tracks_per_session"]["mean"] * day["sessions"]) for day in days)
    assert events["value"].sum() == pytest.approx(
        sum(day["time_per_session"]["mean"] * day["sessions"] for day in days)
    )
    assert events.filter(pl.col("type") == "last").height == 1400
    shown = set(pl.read_parquet(folder / "day2.parquet").filter(pl.col("item_id").is_null())["request_id"])
    told = events.drop_nulls("request_id")["request_id"]
    assert len(told) == events.height - 1400  # all but the first track of each session
    assert len(shown & set(told)) / len(told) > 0.99  # impressions may be dropped, and are counted then


def test_training_sees_the_log_and_nothing_else(folder: Path) -> None:
    for night in ("night0/newest", "night1/newest"):
        assert [path.name for path in (folder / night / "data").iterdir()] == ["interactions.parquet"]
        data = pl.read_parquet(folder / night / "data" / "interactions.parquet")
        assert data.columns == ["user_id", "item_id", "timestamp", "weight"]
        logged = {
            (line["user"], line["track"])
            for line in map(json.loads, (folder / "day0.json").read_text().splitlines())
        }
        if night.startswith("night1"):
            exported = pl.read_parquet(folder / "day1.parquet").filter(pl.col("item_id").is_not_null())
            logged |= {(int(user), int(item)) for user, item in exported.select("user_id", "item_id").rows()}
        assert set(data.select("user_id", "item_id").rows()) <= logged
