"""The bench, at a size that proves its plumbing; what it measures is no test's business."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.__main__ import hit_share
from loadtest.bench.wrk import HOW_TO


def bench(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "loadtest.bench", *words], capture_output=True, check=False, cwd=root,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip


@pytest.fixture
def _wrk() -> None:
    if shutil.which("wrk") is None:
        assert os.environ.get("CI") != "true", HOW_TO
        pytest.skip(HOW_TO)


@pytest.mark.usefixtures("_wrk")
def test_report_has_every_asked_rung_beside_raw_asgi_with_recall() -> None:
    done = bench(
        "--seconds", "0.2", "--rounds", "2", "--rungs", "warm-exact,v1", "--users", "200", "--items", "300",
        "--dim", "16", "--open-loop", "warm-exact",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report["rungs"]) == ["raw-asgi", "warm-exact", "v1"]
    assert report["catalogue"] | {"seen_mean": 0} == {
        "items": 300, "dim": 16, "users": 200, "model": "als", "seen_mean": 0,
    }  # fmt: skip
    base, exact, v1 = report["rungs"].values()
    assert (base["ratio_least"], base["ratio"], base["ratio_most"]) == (1, 1, 1)
    assert base["recall_at_10"] is None
    assert exact["recall_at_10"] >= 0.999
    assert v1["recall_at_10"] > 0.9
    for rung in (base, exact, v1):
        assert 0 < rung["rps_least"] <= rung["rps"] <= rung["rps_most"]
        assert rung["ratio_least"] <= rung["ratio"] <= rung["ratio_most"]
        assert 0 < rung["p50_us_c1"] <= rung["p99_us_c1"]
    assert exact["title"][:8].encode() in done.stderr
    assert list(report["open_loop"]) == ["2000/s", "50%", "80%"]
    for name in ("raw-asgi", "warm-exact"):
        at_half = report["open_loop"]["50%"][name]
        assert at_half["rate"] == pytest.approx(report["rungs"][name]["rps"] / 2, abs=1)
        if "p99_us" in at_half:  # else the machine did not carry it, and the table says so
            assert 0 < at_half["p50_us"] <= at_half["p99_us"]
    assert b"open loop" in done.stderr


@pytest.mark.usefixtures("_wrk")
def test_kept_and_precomputed_answers_are_checked_and_what_is_not_installed_is_left_out(
    tmp_path: Path,
) -> None:
    page = tmp_path / "bench.html"
    done = bench(
        "--seconds", "0.2", "--rounds", "1", "--rungs", "nginx,bentoml,ranked,precomputed,cached", "--users", "200",
        "--items", "300", "--dim", "16", "--html", str(page),
        environment={"BENCH_BENTOML": sys.executable, "PATH": f"{Path(shutil.which('wrk') or '').parent}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout.splitlines()[-1])
    assert "two stages" in report["skipped"].pop("ranked")
    assert "pip install bentoml" in report["skipped"].pop("bentoml")
    for rung in ("precomputed", "cached"):
        assert report["rungs"][rung]["recall_at_10"] >= 0.999
    assert report["cache_hit_share"] > 0.1
    assert set(report["rungs"]) | set(report["skipped"]) == {"raw-asgi", "nginx", "precomputed", "cached"}
    shown = page.read_text()
    for rung in report["rungs"].values():
        assert rung["title"] in shown
        for spread in rung["latencies_us"].values():
            assert sorted(spread.values()) == list(spread.values())


@pytest.mark.usefixtures("_wrk")
def test_unknown_rung_is_named_with_those_there_are() -> None:
    done = bench("--rungs", "warp")
    assert done.returncode == 2
    assert b"'warp'" in done.stderr
    assert b"warm-exact" in done.stderr


@pytest.mark.usefixtures("_wrk")
def test_folder_without_a_published_bundle_is_refused(tmp_path: Path) -> None:
    done = bench("--artifacts", str(tmp_path))
    assert done.returncode == 2
    assert b"nothing is published" in done.stderr


def test_the_share_of_kept_answers_is_read_from_large_counts_too() -> None:
    told = (
        'reco_response_cache_total{result="hit"} 3e+06\nreco_response_cache_total{result="miss"} 1000000.0\n'
    )
    assert hit_share(told) == 0.75
    assert hit_share("") == 0.0
