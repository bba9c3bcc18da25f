"""`reco serve --profile botify`: workers that share one memory and one log, and a stop that loses no line."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
from botify_catalogue import TRACKS, write_botify_bundle
from redis_at import redis_server
from served import Served, end, launch, served, wait_for

USERS, LISTENS = 24, 15


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("music")
    write_botify_bundle(root)
    return root


def listen(service: Served, users: range) -> None:
    """Each user hears tracks one after another, over connections that any worker may take."""
    no_keep_alive = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=service.url, timeout=30, limits=no_keep_alive) as client:
        for turn in range(LISTENS):
            for user in users:
                answer = client.post(f"/next/{user}", json={"track": TRACKS[turn], "time": turn / 100})
                assert answer.status_code == 200
                assert answer.json()["track"] in TRACKS
                assert "x-reco-degraded" not in answer.headers


def test_replicas_share_memory_and_log_and_lose_no_line_on_stop(
    music: Path, tmp_path: Path, component: Callable[[str, str], str]
) -> None:
    with redis_server(component) as server:
        env = {"RECO_REDIS_URL": server.url, "RECO_REDIS_TIMEOUT_MS": "10000"}
        with served(music, tmp_path, "--profile", "botify", env=env) as service:
            clients = [
                threading.Thread(target=listen, args=(service, range(first, USERS, 4))) for first in range(4)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            assert service.stop() == 0
            answering = {line["pid"] for line in service.log if line.get("method") == "POST"}
            assert len(answering) == 2
        with redis.Redis(unix_socket_path=str(server.socket), db=2) as memory:
            assert len(memory.keys()) == USERS
            for user in range(USERS):
                entries = [json.loads(entry) for entry in memory.lrange(f"user:{user}:listens", 0, -1)]
                newest = range(LISTENS - 1, LISTENS - 11, -1)
                assert entries == [{"track": TRACKS[turn], "time": turn / 100} for turn in newest]
    lines = [json.loads(line) for line in (tmp_path / "log" / "data.json").read_text().splitlines()]
    assert Counter(line["user"] for line in lines) == dict.fromkeys(range(USERS), LISTENS)
    assert all(line["recommendation"] in TRACKS for line in lines)


def listen_until_hung_up(service: Served, user: int, answered: list[int]) -> None:
    """Post over connections of its own until none can be made any more; note the users of all answers."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        while True:
            try:
                answer = client.post(f"/next/{user}", json={"track": TRACKS[0], "time": 1.0})
            except httpx.ConnectError:
                return
            except httpx.TransportError:  # an idle connection was closed as we were about to ask
                continue
            assert answer.status_code == 200
            answered.append(user)


def test_every_answer_of_a_service_stopped_in_mid_traffic_is_in_the_log(music: Path, tmp_path: Path) -> None:
    answered: list[int] = []
    with served(music, tmp_path, "--profile", "botify") as service:
        clients = [
            threading.Thread(target=listen_until_hung_up, args=(service, user, answered)) for user in range(6)
        ]
        for client in clients:
            client.start()
        wait_for(lambda: len(answered) > 200, "traffic")
        assert service.stop() == 0
        for client in clients:
            client.join()
    lines = [json.loads(line) for line in (tmp_path / "log" / "data.json").read_text().splitlines()]
    assert not Counter(answered) - Counter(line["user"] for line in lines)


def test_without_redis_there_is_one_worker_and_a_term_loses_no_line(music: Path, tmp_path: Path) -> None:
    flags = ["--profile", "botify", "--no-supervisor"]
    with served(
        music, tmp_path, *flags, env={"RECO_BOTIFY_LOG": str(tmp_path / "elsewhere.json")}
    ) as service:
        listen(service, range(3))
        assert service.stop() == 0
    assert len((tmp_path / "elsewhere.json").read_text().splitlines()) == 3 * LISTENS


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"RECO_BOTIFY_RUN": "HSTU"}, "botify experiment HSTU: bundle"),
        ({"RECO_BOTIFY_RUN": "NOBODYS"}, "no experiment 'NOBODYS'"),
        ({"RECO_BOTIFY_EXPERIMENTS": "nowhere.toml"}, "RECO_BOTIFY_EXPERIMENTS=nowhere.toml"),
        ({"RECO_BOTIFY_LOG": "/dev/null/data.json"}, "RECO_BOTIFY_LOG=/dev/null/data.json"),
        ({"RECO_REDIS_URL": "http://localhost"}, "RECO_REDIS_URL"),
    ],
)
def test_a_start_that_cannot_play_ends_with_two_and_one_line(
    music: Path, tmp_path: Path, env: dict[str, str], says: str
) -> None:
    failing = launch(music, tmp_path, "--profile", "botify", env=env)
    try:
        assert failing.process.wait(30) == 2
        (line,) = failing.said.splitlines()
        assert says in line
    finally:
        end(failing)


def test_text_ids_are_refused(str_artifacts: Path, tmp_path: Path) -> None:
    failing = launch(str_artifacts, tmp_path, "--profile", "botify")
    try:
        assert failing.process.wait(30) == 2
        assert "tracks are whole numbers" in failing.said
    finally:
        end(failing)
