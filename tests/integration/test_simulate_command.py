"""`reco simulate` as a person runs it, against a real server of botify's protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botify_server import botify_server

RECO = Path(sys.executable).with_name("reco")


def reco(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RECO, *map(str, words)], capture_output=True, text=True, input=stdin, check=False, timeout=120
    )


def figures(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    found.pop("latency_ms")
    for day in found["days"].values():
        day.pop("latency_ms")
    found.pop("target")
    return found


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "catalogue"
    run = reco(
        "simulate", "catalogue", "--tracks", 200, "--artists", 40, "--users", 30, "--seed", 3, "--out", folder
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["tracks"] == 200
    return folder


def by_user_and_history(user: int, heard: list[int]) -> int:
    """Depends on all that the server was told of a user, and on nothing else."""
    return (31 * user + 7 * sum(heard) + len(heard)) % 200


def test_a_seed_gives_the_same_result_whatever_runs_side_by_side(catalogue: Path) -> None:
    results, heard = [], []
    for flags in (("--concurrency", 1), ("--concurrency", 13), ("--concurrency", 3, "--processes", 2)):
        with botify_server(by_user_and_history) as server:
            run = reco(
                "simulate", "--url", server.url, "--catalogue", catalogue, "--sessions", 60, "--days", 2,
                "--seed", 5, *flags
            )  # fmt: skip
        results.append(figures(run))
        heard.append(dict(server.heard))

    assert results[0] == results[1] == results[2]
    assert heard[0] == heard[1] == heard[2]
    assert results[0]["sessions"] == 120
    assert list(results[0]["days"]) == ["1", "2"]


def test_each_track_is_reported_once_and_each_session_closed_by_last(catalogue: Path) -> None:
    with botify_server(by_user_and_history) as server:
        run = reco("simulate", "--url", server.url, "--catalogue", catalogue, "--sessions", 40, "--seed", 2)

    found = figures(run)
    told = [report for reports in server.heard.values() for report in reports]
    assert sum(message == "last" for message, _, _ in told) == 40
    assert sum(time for _, _, time in told) == pytest.approx(40 * found["time_per_session"]["mean"])
    assert len(told) == pytest.approx(40 * found["tracks_per_session"]["mean"])
    for reports in server.heard.values():
        begins = [True, *(message == "last" for message, _, _ in reports[:-1])]
        assert all(time == 1.0 for (_, _, time), first in zip(reports, begins, strict=True) if first)


def test_connections_are_kept_and_reopened_when_the_server_hangs_up(catalogue: Path) -> None:
    common = ("--catalogue", catalogue, "--sessions", 20, "--seed", 2, "--concurrency", 4)
    with botify_server(by_user_and_history) as server:
        kept = figures(reco("simulate", "--url", server.url, *common))
        assert server.connections <= 5  # one asked for the protocol
    with botify_server(by_user_and_history, close_each=True) as server:
        reopened = figures(reco("simulate", "--url", server.url, *common))

    assert kept == reopened


@pytest.mark.parametrize(
    ("rule", "status", "says"),
    [
        (lambda user, heard: 200, 200, "a track outside the catalogue"),
        (lambda user, heard: None, 200, "no whole number"),
        (lambda user, heard: True, 200, "no whole number"),
        (lambda user, heard: None, 500, "status 500"),
    ],
)
def test_answers_that_no_listener_can_go_on_with_are_counted_and_fail(
    catalogue: Path, rule: Any, status: int, says: str
) -> None:
    with botify_server(rule, status=status) as server:
        run = reco(
            "simulate", "--url", server.url, "--protocol", "botify", "--catalogue", catalogue, "--sessions", 5
        )  # fmt: skip

    assert run.returncode == 1
    assert "5 of 5 sessions broken off" in run.stderr
    assert says in run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["sessions"], sum(result["faults"].values())) == (0, 5)


def test_nobody_at_the_address_is_bad_input() -> None:
    with botify_server(by_user_and_history) as server:
        pass

    run = reco("simulate", "--url", server.url, "--sessions", 3)

    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "nobody answers" in run.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--url", "localhost"),
        ("--url", "http://127.0.0.1:many"),
        ("--agent", "random", "--sessions", "0"),
        ("--agent", "random", "--seed", "-1"),
        ("--agent", "random", "--from", "yesterday"),
        ("--agent", "random", "--fail-below", "0.9"),
        ("--agent", "random", "--view-from", "1.1"),
        ("--agent", "random", "--catalogue", "nowhere"),
        ("--agent", "random", "--tracks", "tracks.json"),
        (),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_two(flags: tuple[str, ...]) -> None:
    run = reco("simulate", *flags)

    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stdout == ""


def test_without_a_catalogue_one_of_the_courses_size_is_drawn() -> None:
    with botify_server(lambda user, heard: 16_197) as server:
        found = figures(reco("simulate", "--url", server.url, "--sessions", 5, "--seed", 1))

    assert found["sessions"] == 5


def test_a_bundle_that_makes_people_leave_earlier_fails_the_gate(catalogue: Path, tmp_path: Path) -> None:
    common = ("--catalogue", catalogue, "--sessions", 300)
    baseline = tmp_path / "baseline.json"
    sticky = reco("simulate", "--agent", "sticky", *common, "--seed", 1)
    baseline.write_text(sticky.stdout)
    gate = ("--baseline", baseline, "--fail-below", "0.95")

    again = reco("simulate", "--agent", "sticky", *common, "--seed", 2, *gate)
    worse = reco("simulate", "--agent", "random", *common, "--seed", 2, *gate)

    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["against_baseline"]["significant"] is False
    assert worse.returncode == 1
    assert "people leave earlier" in worse.stderr
    assert json.loads(worse.stdout)["against_baseline"]["upper"] < 0


def test_a_person_can_play_the_recommender(catalogue: Path) -> None:
    run = reco(
        "simulate", "--agent", "console", "--catalogue", catalogue, "--sessions", 1, stdin="x\n300\n" + "5\n" * 60
    )  # fmt: skip

    assert figures(run)["sessions"] == 1
    assert "'x' is no track" in run.stderr
    assert "'300' is no track" in run.stderr
    assert "left after" in run.stderr


def test_days_can_wait_for_a_person(catalogue: Path) -> None:
    run = reco(
        "simulate", "--agent", "random", "--catalogue", catalogue, "--sessions", 5, "--days", 9, "--ask", stdin="y\nn\n"
    )  # fmt: skip

    assert list(figures(run)["days"]) == ["1", "2"]


def test_the_log_of_a_simulated_clock_is_read_back_as_listens(catalogue: Path, tmp_path: Path) -> None:
    log = tmp_path / "log" / "data.json"
    found = figures(
        reco(
            "simulate", "--agent", "random", "--catalogue", catalogue, "--sessions", 50, "--days", 2,
            "--from", "2026-01-01", "--log", log,
        )
    )  # fmt: skip
    lines = [json.loads(line) for line in log.read_text().splitlines()]

    assert len(lines) == round(100 * found["tracks_per_session"]["mean"])
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    first_ms, day_ms = 1767225600000, 86_400_000  # 2026-01-01 UTC
    assert {(line["timestamp"] - first_ms) // day_ms for line in lines} <= {0, 1, 2}
    for user in {line["user"] for line in lines}:  # no session begins before the user's last one ended
        theirs = [line["message"] for line in lines if line["user"] == user]
        assert theirs[-1] == "last"
        spans = "".join("n" if message == "next" else "|" for message in theirs).split("|")
        assert all(len(span) >= 1 for span in spans[:-1])
