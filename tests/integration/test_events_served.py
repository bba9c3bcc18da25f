"""The event log of the real `reco serve`: a full disk, a killed worker, a drain, several workers, the command line."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import polars as pl
import pytest
from served import PATIENCE_S, RECO, Served, launch, served, wait_for

Event = dict[str, Any]


def event(name: str, **changes: Any) -> Event:
    known = {
        "event_id": name,
        "type": "view",
        "user_id": 100,
        "item_id": 10,
        "timestamp_ms": 1_700_000_000_000,
    }
    return {**known, **changes}


def post(service: Served, *events: Event) -> httpx.Response:
    return httpx.post(
        f"{service.url}/v1/events", json={"events": events}, headers=service.headers, timeout=PATIENCE_S
    )


def reco(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RECO, *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def tail(folder: Path) -> list[Event]:
    done = reco("events", "tail", "--events", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return [orjson.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def unharmed(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service for tests that do nothing to it but ask; its events are in `run/events`."""
    run = tmp_path_factory.mktemp("run")
    env = {"RECO_EVENTS_DIR": str(run / "events"), "RECO_ACCESS_LOG": "off"}
    with served(artifacts, run, env=env) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
def service(artifacts: Path, tmp_path: Path, folder: Path) -> Iterator[Served]:
    with served(
        artifacts, tmp_path / "run", env={"RECO_EVENTS_DIR": str(folder), "RECO_ACCESS_LOG": "off"}
    ) as running:
        yield running


def limit_files(service: Served, most: int) -> None:
    """Let no file of the workers grow beyond so many bytes."""
    for pid in service.workers:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_full_disk_is_an_explicit_503_while_reads_go_on_and_writing_resumes(
    service: Served, folder: Path
) -> None:
    post(service, event("before"))
    limit_files(service, 0)
    for number in range(20):
        refused = post(service, event(f"refused-{number}"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "there is no space for events" in refused.json()["detail"]
        assert service.get(f"/reco/default/{100 + number}").status_code == 200
    assert service.counted("reco_events_log_state") == {"": 1.0}
    assert service.counted("reco_events_total")['{result="failed",type="view"}'] == 20
    limit_files(service, resource.RLIM_INFINITY)
    again = [post(service, event(f"refused-{number}")) for number in range(20)]
    assert {answer.status_code for answer in again} == {200}
    ids = {record["event_id"] for record in tail(folder) if "items" not in record}
    assert ids == {"before", *(f"refused-{number}" for number in range(20))}
    assert reco("events", "verify", "--events", folder).returncode == 0
    wait_for(lambda: service.counted("reco_events_log_state") == {"": 0.0}, "both workers to write again")


def test_what_was_acknowledged_outlives_a_killed_worker(service: Served, folder: Path) -> None:
    sent = [f"e-{number}" for number in range(40)]
    assert all(post(service, event(name)).status_code == 200 for name in sent)
    old = service.workers
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(service.workers) == 2 and not service.workers & old, "new workers")
    results = [post(service, event(name)).json() for name in sent]
    assert sum(result["accepted"] + result["duplicates"] for result in results) == 40
    assert {record["event_id"] for record in tail(folder)} == set(sent)
    done = reco("events", "export", "--events", folder, "--out", folder / "out.parquet")
    assert done.returncode == 0
    assert sorted(pl.read_parquet(folder / "out.parquet")["event_id"]) == sorted(sent)


def test_impressions_are_written_by_the_end_of_a_drain(service: Served, folder: Path) -> None:
    for user in range(30):
        service.get(f"/reco/default/{100 + user}")
    assert service.stop() == 0
    assert sorted(record["user_id"] for record in tail(folder)) == [100 + user for user in range(30)]


def test_counts_are_summed_over_workers(unharmed: Served) -> None:
    for number in range(24):  # each over a connection of its own, so that both workers get some
        post(unharmed, event(f"click-{number}", type="click"), event(f"click-{number}", type="click"))
        unharmed.get("/reco/default/100")
    wait_for(
        lambda: unharmed.counted("reco_events_total").get('{result="accepted",type="slate"}') == 24,
        "24 slates",
    )
    counted = unharmed.counted("reco_events_total")
    assert [counted[f'{{result="{result}",type="click"}}'] for result in ("accepted", "duplicate")] == [
        24,
        24,
    ]
    assert unharmed.counted("reco_events_commit_seconds_count")[""] >= 24
    assert unharmed.counted("reco_impressions_dropped_total") == {"": 0.0}


def test_a_follower_prints_what_is_logged_while_it_runs(unharmed: Served) -> None:
    post(unharmed, event("first"))
    events = unharmed.folder / "events"
    words: list[str | Path] = ["events", "tail", "--events", events, "--last", "1", "--follow"]
    follower = subprocess.Popen([RECO, *words], stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    try:
        assert orjson.loads(follower.stdout.readline())["event_id"] == "first"
        post(unharmed, event("second"))
        assert orjson.loads(follower.stdout.readline())["event_id"] == "second"
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=PATIENCE_S)
    assert follower.returncode == 130


def test_a_client_that_leaves_costs_at_most_its_own_answer(unharmed: Served) -> None:
    body = orjson.dumps({"events": [event("left")]})
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {unharmed.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((unharmed.host, unharmed.port)) as connection:
        connection.sendall(head.encode() + body)
    assert post(unharmed, event("left")).status_code == 200
    assert "left" in {record["event_id"] for record in tail(unharmed.folder / "events")}


def test_corruption_is_named_by_file_and_offset_and_is_exit_code_3(service: Served, folder: Path) -> None:
    post(service, *(event(str(number)) for number in range(9)))
    service.stop()
    (segment,) = (path for path in folder.glob("worker-*/*.log") if path.stat().st_size)
    data = bytearray(segment.read_bytes())
    size = len(data) // 9
    data[3 * size + 50] ^= 0x10
    segment.write_bytes(data)
    place = f"{segment.parent.name}/{segment.name}: {size} bytes at {3 * size}"
    verified = reco("events", "verify", "--events", folder)
    assert (verified.returncode, verified.stderr) == (3, f"reco: {place}: wrong checksum\n")
    assert orjson.loads(verified.stdout)["records"] == 8
    exported = reco("events", "export", "--events", folder, "--out", folder / "out.jsonl")
    assert (exported.returncode, exported.stderr) == (3, f"reco: {place} left out: wrong checksum\n")
    left = [orjson.loads(line)["event_id"] for line in (folder / "out.jsonl").read_bytes().splitlines()]
    assert left == [str(number) for number in range(9) if number != 3]


@pytest.mark.parametrize("command", [["tail"], ["verify"], ["export", "--out", "x.parquet"]])
def test_a_folder_that_is_not_there_is_told(tmp_path: Path, command: list[str]) -> None:
    done = reco("events", *command, "--events", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (2, f"reco: --events: there is no folder {tmp_path}/nowhere\n")


def test_a_place_that_can_not_be_written_is_told_before_anything_starts(
    artifacts: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    failing = launch(artifacts, tmp_path / "run", env={"RECO_EVENTS_DIR": str(tmp_path / "file")})
    assert failing.process.wait(PATIENCE_S) == 2
    assert failing.said.startswith("reco: RECO_EVENTS_DIR: cannot write events to ")
