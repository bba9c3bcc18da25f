"""The answer after an acknowledged event knows of it: over HTTP, over workers, over replicas, over a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from asking import COLD, WARM, asked, posted, report
from redis_at import redis_server
from served import Served, served, wait_for


def asked_if_up(service: Served, user: int) -> list[int] | None:
    """Items; None while no worker accepts."""
    try:
        return asked(service, user)[0]
    except httpx.TransportError:
        return None


@pytest.fixture(params=["memory", "sqlite", "redis"])
def replicas(
    request: pytest.FixtureRequest,
    artifacts: Path,
    tmp_path: Path,
    component: Callable[[str, str], str],
) -> Iterator[tuple[Served, Served]]:
    """Two that share what users did, or one twice where only one can know."""
    env = {"RECO_HISTORY": request.param, "RECO_EVENTS_DIR": str(tmp_path / "events")}
    env["RECO_PROFILES"] = "handbook,mts"
    if request.param == "memory":
        with served(artifacts, tmp_path / "one", "--workers", "1", env=env) as one:
            yield one, one
    elif request.param == "sqlite":
        env["RECO_HISTORY_PATH"] = str(tmp_path / "state" / "history.sqlite")
        with (
            served(artifacts, tmp_path / "one", env=env) as one,
            served(artifacts, tmp_path / "two", env=env) as two,
        ):
            yield one, two
    else:
        with redis_server(component) as server:
            env |= {"RECO_REDIS_URL": server.url, "RECO_REDIS_TIMEOUT_MS": "5000"}
            with (
                served(artifacts, tmp_path / "one", env=env) as one,
                served(artifacts, tmp_path / "two", env=env) as two,
            ):
                yield one, two


def test_the_next_answer_knows_wherever_it_is_given(replicas: tuple[Served, Served]) -> None:
    writing, reading = replicas
    before, source, _ = asked(reading, WARM)
    assert source == "personal"
    report(writing, WARM, before[0])
    for service in (reading, writing) * 4:  # every worker of each
        items, source, degraded = asked(service, WARM)
        assert before[0] not in items
        assert (source, degraded) == ("fold_in", None)

    popular, source, _ = asked(reading, COLD)
    assert source == "popular"
    report(writing, COLD, popular[1], kind="click")
    items, source, _ = asked(reading, COLD)
    assert popular[1] not in items
    assert source == "fold_in"

    shown, _, _ = asked(reading, COLD + 1)
    report(writing, COLD + 1, shown[0], kind="impression")
    assert asked(reading, COLD + 1)[:2] == (shown, "popular")

    seen = {before[0]}
    one = posted(reading, "recommend", {"user_id": WARM, "model": "als"})
    assert one["source"] == "fold_in"
    assert seen.isdisjoint(item["item_id"] for item in one["items"])
    profile = reading.get(f"/get_recommendation?user_id={WARM}&top_k=39")
    assert seen.isdisjoint(profile.json()["recommendations"])
    profile = httpx.post(
        f"{reading.url}/api/v1/recommend_for_user",
        json={"user_id": WARM, "item_whitelist": []},
        headers=reading.headers,
        timeout=30,
    )
    assert profile.status_code == 200
    assert seen.isdisjoint(profile.json()["item_ids"])
    own = posted(reading, "recommend", {"user_id": WARM, "model": "als", "k": 39, "history": [12]})
    assert before[0] in [item["item_id"] for item in own["items"]]  # who brings a history knows better

    batch = posted(
        reading,
        "recommend:batch",
        {"queries": [{"user_id": user, "model": "als"} for user in (COLD + 2, WARM, "?", COLD)]},
    )
    answers = [result.get("answer") for result in batch["results"]]
    assert answers[2] is None
    assert [answer["source"] for answer in answers if answer] == ["popular", "fold_in", "fold_in"]
    assert seen.isdisjoint(item["item_id"] for item in answers[1]["items"])
    assert popular[1] not in [item["item_id"] for item in answers[3]["items"]]


def test_a_filed_history_survives_a_kill(artifacts: Path, tmp_path: Path) -> None:
    env = {
        "RECO_HISTORY": "sqlite",
        "RECO_HISTORY_PATH": str(tmp_path / "history.sqlite"),
        "RECO_EVENTS_DIR": str(tmp_path / "events"),
    }
    with served(artifacts, tmp_path / "first", env=env) as service:
        before, _, _ = asked(service, WARM)
        report(service, WARM, *before[:3])
        for pid in (service.process.pid, *service.workers):
            os.kill(pid, signal.SIGKILL)
        service.process.wait()
    with served(artifacts, tmp_path / "second", env=env) as service:
        items, source, _ = asked(service, WARM)
        assert source == "fold_in"
        assert not set(before[:3]) & set(items)


def test_workers_killed_and_replaced_know_what_was_acknowledged(artifacts: Path, tmp_path: Path) -> None:
    env = {
        "RECO_HISTORY": "sqlite",
        "RECO_HISTORY_PATH": str(tmp_path / "history.sqlite"),
        "RECO_EVENTS_DIR": str(tmp_path / "events"),
    }
    with served(artifacts, tmp_path / "run", env=env) as service:
        seen: set[int] = set()
        for _ in range(3):
            items, _, _ = asked(service, WARM)
            report(service, WARM, items[0])
            seen.add(items[0])
            old = service.workers
            for worker in old:
                os.kill(worker, signal.SIGKILL)
            wait_for(lambda old=old: len(service.workers - old) == 2, "new workers")

            wait_for(lambda: asked_if_up(service, WARM), "an answer")
            assert seen.isdisjoint(asked(service, WARM)[0])


def test_what_was_in_memory_comes_back_from_the_event_log(artifacts: Path, tmp_path: Path) -> None:
    env = {"RECO_HISTORY": "memory", "RECO_EVENTS_DIR": str(tmp_path / "events")}
    with served(artifacts, tmp_path / "first", "--workers", "1", env=env) as service:
        before, _, _ = asked(service, WARM)
        report(service, WARM, *before[:2])
        (worker,) = service.workers
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: service.workers - {worker}, "a new worker")
        wait_for(lambda: not set(before[:2]) & set(asked_if_up(service, WARM) or before), "the old events")
    with served(artifacts, tmp_path / "second", "--workers", "1", env=env) as service:
        items, source, _ = asked(service, WARM)
        assert source == "fold_in"
        assert not set(before[:2]) & set(items)


def test_no_history_is_asked_where_none_is_kept(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path / "run", env={"RECO_EVENTS_DIR": str(tmp_path / "events")}) as service:
        before, source, _ = asked(service, WARM)
        report(service, WARM, before[0])
        assert asked(service, WARM)[:2] == (before, source)
        assert service.counted("reco_history_reads_total") == {}
