"""Towers in the real service: workers forked after the load, replaced after a death, and after a reload."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from factories import tiny_dataset
from served import PATIENCE_S, Served, served, wait_for
from tower_bundles import tower_model, write_tower_bundle

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Deadline, Plan, Query
from service.recommender.live import go_live
from service.recommender.pipeline import recommend

TOLD = 100 + 3 * 56
HISTORY = [12, 14, 30]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tower-artifacts")
    write_tower_bundle(root)
    return root


@pytest.fixture(scope="module")
def service(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(artifacts, tmp_path_factory.mktemp("run"), "--admin-port", "0") as running:
        yield running


def asked(service: Served, **body: object) -> httpx.Response:
    """Ask over a connection of its own, so that any worker may answer."""
    return httpx.post(
        f"{service.url}/v1/recommend", json={"model": "tower", "k": 7, **body}, headers=service.headers,
        timeout=PATIENCE_S,
    )  # fmt: skip


def in_process(artifacts: Path) -> list[int | str]:
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))
    return recommend(Query(None, 7, history=tuple(HISTORY)), Plan("tower"), live, Deadline.none()).item_ids


def test_every_worker_answers_as_the_same_process_would(service: Served, artifacts: Path) -> None:
    expected = in_process(artifacts)
    for _ in range(20):
        body = asked(service, history=HISTORY).json()
        assert [item["item_id"] for item in body["items"]] == expected
        assert (body["source"], body["degraded"]) == ("fold_in", [])


def test_features_are_disclosed_as_the_source(service: Served) -> None:
    answer = service.get(f"/reco/tower/{TOLD}")
    assert answer.headers["X-Reco-Source"] == "features"
    assert service.counted("reco_source_total")['{model="tower",source="features"}'] >= 1


def test_neither_parent_nor_workers_were_given_a_thread_by_the_runtime(service: Served) -> None:
    for pid in (service.process.pid, *service.workers):
        names = {(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
        assert len(names) <= 2, names  # a worker's own access log
    assert len(list(Path(f"/proc/{service.process.pid}/task").iterdir())) == 1


def test_the_successor_of_a_dead_worker_runs_the_tower_too(service: Served, artifacts: Path) -> None:
    expected, before = in_process(artifacts), service.workers
    os.kill(min(before), signal.SIGKILL)
    wait_for(lambda: len(service.workers) == 2 and service.workers != before, "a successor")
    for _ in range(20):
        body = asked(service, history=HISTORY).json()
        assert [item["item_id"] for item in body["items"]] == expected


def test_a_new_bundles_tower_answers_after_a_reload(service: Served, artifacts: Path) -> None:
    model = tower_model(tiny_dataset())
    write_tower_bundle(artifacts, replace(model, training={"again": True}))
    new = ArtifactStore(artifacts).current().name
    wait_for(
        lambda: {asked(service, history=HISTORY).headers["X-Reco-Bundle"] for _ in range(6)} == {new},
        "the reload",
    )
    assert asked(service, history=HISTORY).json()["source"] == "fold_in"
