"""The course's simulator as a client: it posts what was heard, trusts no status, and plays the track it is given."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
import urllib3
from botify_catalogue import TRACKS, write_botify_bundle
from running import listening, settings_for

from service.app import create_app

SESSIONS = 40
EXPERIMENTS = """
[AA]
split = 2
[PLAYED]
treatments = [
    { recommender = "sticky_artist_mixed" },
    { recommender = "i2i", model = "contextual" },
    { recommender = "model", model = "als" },
]
"""


class Client:
    """Posts over a pool and reads the JSON, whatever the status; a track must be a whole number of the catalogue."""

    def __init__(self, host: str, port: int) -> None:
        self._pool = urllib3.HTTPConnectionPool(host, port, maxsize=1, retries=False)

    def next(self, user: int, track: int, time: float) -> int:
        answer = self._post(f"/next/{user}", track, time)
        assert answer["user"] == user
        assert type(answer["track"]) is int
        assert answer["track"] in TRACKS
        return int(answer["track"])

    def last(self, user: int, track: int, time: float) -> None:
        assert self._post(f"/last/{user}", track, time) == {"user": user}

    def close(self) -> None:
        self._pool.close()

    def _post(self, path: str, track: int, time: float) -> dict[str, Any]:
        body = json.dumps({"track": track, "time": time})
        response = self._pool.request("POST", path, body=body, headers={"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(response.data)
        return answer


def play(client: Client, sessions: int, rng: Random) -> list[tuple[str, int, int, float]]:
    """Sessions of listeners who leave at random; returns what was posted."""
    posted = []
    for _ in range(sessions):
        user, track, time = rng.randrange(1000), rng.choice(TRACKS), 1.0
        while rng.random() < 0.8:
            posted.append(("next", user, track, time))
            track, time = client.next(user, track, time), round(rng.random(), 2)
        posted.append(("last", user, track, time))
        client.last(user, track, time)
    return posted


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("music")
    write_botify_bundle(root)
    return root


def simulate(
    music: Path, folder: Path, seed: int
) -> tuple[list[tuple[str, int, int, float]], list[dict[str, Any]]]:
    folder.mkdir()
    (folder / "experiments.toml").write_text(EXPERIMENTS)
    settings = settings_for(
        music,
        profiles="botify",
        botify_experiments=folder / "experiments.toml",
        botify_log=folder / "data.json",
        botify_seed=seed,
    )
    with listening(create_app(settings)) as address:
        client = Client(*address)
        posted = play(client, SESSIONS, Random(0))
        client.close()
    return posted, [json.loads(line) for line in (folder / "data.json").read_text().splitlines()]


def test_a_day_of_sessions_is_answered_and_logged_whole(music: Path, tmp_path: Path) -> None:
    posted, lines = simulate(music, tmp_path / "day", seed=1)
    assert [(line["message"], line["user"], line["track"], line["time"]) for line in lines] == posted
    by_treatment = defaultdict(list)
    for line in lines:
        by_treatment[line["experiments"]["PLAYED"]].append(line)
    assert set(by_treatment) == {"C", "T1", "T2"}
    for before, after in itertools.pairwise(lines):
        if before["message"] == "next":
            assert after["track"] == before["recommendation"]


def test_the_anchored_and_the_own_model_repeat_nothing_of_the_last_ten(music: Path, tmp_path: Path) -> None:
    _, lines = simulate(music, tmp_path / "day", seed=2)
    heard: dict[int, list[int]] = defaultdict(list)
    asked = 0
    for line in lines:
        heard[line["user"]].append(line["track"])
        if line["message"] == "next" and line["experiments"]["PLAYED"] != "C":
            asked += 1
            assert line["recommendation"] not in heard[line["user"]][-10:]
    assert asked > 20


def test_a_seed_makes_a_day_repeatable(music: Path, tmp_path: Path) -> None:
    days = [simulate(music, tmp_path / name, seed)[0] for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    assert days[0] == days[1] != days[2]
