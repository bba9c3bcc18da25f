"""`python -m sim.run`, called as the course calls its simulator, from a folder that has its config/env.yml."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botify_server import Botify, botify_server
from sim.run import main

from loadtest.simulator.audience import draw_audience, write_audience
from loadtest.simulator.catalogue import write_catalogue
from loadtest.simulator.generator import generate_catalogue

CONFIG = """
track_catalog_config:
  track_meta_path: data/tracks.json
  track_embeddings_path: data/embeddings.npy

user_catalog_config:
  user_catalog_path: data/users.json

remote_recommender_config:
  host: {host}
  port: {port}
"""
TRACKS = 60
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    write_catalogue(generate_catalogue(TRACKS, 12, seed=1), folder / "data")
    write_audience(draw_audience(20, TRACKS, seed=1), folder / "data" / "users.json")
    (folder / "config").mkdir()
    return folder


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, url: str = "http://127.0.0.1:1", said: str = "n\n") -> Done:
        configure(folder, url)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        code = main(words)
        return Done(code, *capsys.readouterr())

    return run


def configure(folder: Path, url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    (folder / "config" / "env.yml").write_text(CONFIG.format(host=host, port=port))


def rows(done: Done) -> list[list[float]]:
    """The table's numbers: day, mean and sem of reward, mean and sem of steps."""
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^\| (\d.*) \|$", done.stdout, re.MULTILINE)
    return [[float(cell) for cell in row.split("|")] for row in found]


def next_of(_: int, heard: list[int]) -> int:
    return (heard[-1] + 7) % TRACKS


def sessions(botify: Botify) -> int:
    return sum(message == "last" for heard in botify.heard.values() for message, _, _ in heard)


def test_a_service_is_asked_day_after_day_until_the_answer_is_n(run: Run) -> None:
    words = (
        "--episodes",
        "12",
        "--config",
        "config/env.yml",
        "single",
        "--recommender",
        "remote",
        "--seed",
        "7",
    )
    with botify_server(next_of) as botify:
        done = run(*words, url=botify.url, said="perhaps\ny\nn\n")
        heard = [time for one in botify.heard.values() for _, _, time in one]
        assert sessions(botify) == 24
    first, second = rows(done)
    assert (first[0], second[0]) == (1, 2)
    assert first[1:] != second[1:]  # another day, other sessions
    # What the client posted adds up to the table: every listen but a session's first is a reward.
    offered = sum(heard) - 24 * 1.0
    assert 12 * (first[1] + second[1]) == pytest.approx(offered, rel=1e-4)
    assert 12 * (first[3] + second[3]) == pytest.approx(len(heard) - 24)


def test_a_seed_repeats_the_listeners(run: Run) -> None:
    def day(seed: str) -> list[list[float]]:
        with botify_server(next_of) as botify:
            words = ("--episodes", "6", "single", "--recommender", "remote", "--seed", seed)
            return rows(run(*words, url=botify.url))

    assert day("3") == day("3") != day("4")


def test_the_module_runs_by_its_name_and_its_processes_share_the_work(folder: Path) -> None:
    words = [sys.executable, "-m", "sim.run", "--episodes", "3", "multi", "--processes", "2"]
    with botify_server(next_of) as botify:
        configure(folder, botify.url)
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert sessions(botify) == 6
    (row,) = rows(Done(done.returncode, done.stdout, done.stderr))
    assert row[0] == 1
    assert row[3] > 0


def test_any_track_needs_no_service(run: Run) -> None:
    (row,) = rows(run("--episodes", "8", "single", "--recommender", "dummy"))
    assert row[1] >= 0
    assert row[3] >= 5  # a budget of five tracks left off


def test_the_console_plays_what_is_typed(run: Run) -> None:
    said = "".join(f"{track}\n" for track in range(TRACKS)) * 3
    done = run("--episodes", "1", "single", "--recommender", "console", said=said)
    assert len(rows(done)) == 1
    assert "next track, 0 to 59" in done.stderr


def test_what_is_wrong_is_said(run: Run, folder: Path) -> None:
    dead = run("--episodes", "1", "single", "--recommender", "remote")
    assert (dead.returncode, "127.0.0.1:1 failed" in dead.stderr) == (1, True)
    (folder / "config" / "bad.yml").write_text("track_catalog_config:\n  track_meta_path: 5\n")
    bad = run("--config", "config/bad.yml", "single", "--recommender", "dummy")
    assert bad.returncode == 2
    assert "bad.yml: remote_recommender_config.port: must be a whole number" in bad.stderr
    missing = run("--config", "config/none.yml", "single", "--recommender", "dummy")
    assert (missing.returncode, "none.yml" in missing.stderr) == (2, True)
