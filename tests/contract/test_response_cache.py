"""RECO_RESPONSE_CACHE: an answer given again is the answer that would be computed now, and is counted like it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from running import BEARER, running, settings_for

from service.app import RecoApp
from service.bundle.reader import load_bundle
from service.events.reading import read_records
from service.recommender.live import LiveBundle, go_live
from service.state.memory import MemoryHistory

EXPERIMENTS = """
[experiments.order]
control = "plain"
on = ["als"]
[experiments.order.treatments.plain]
[experiments.order.treatments.mixed]
n_candidates = 20
rerank = { method = "mmr", relevance = 0.3 }
[experiments.chance]
layer = "chance"
control = "greedy"
on = ["knn"]
[experiments.chance.treatments.greedy]
n_candidates = 20
[experiments.chance.treatments.curious]
n_candidates = 20
exploration = { kind = "epsilon", epsilon = 0.9 }
"""
USERS = (100, 103, 106, 109, 265, 999_999)  # 265 has no events; nobody knows 999999
_SAMPLE = re.compile(r'^reco_response_cache_total\{result="(hit|miss)"\} (\d+)', re.MULTILINE)

REQUESTS = st.tuples(
    st.just("ask"), st.sampled_from(USERS), st.sampled_from(["als", "knn", "ease", "lists", "popular", "default"]),
    st.sampled_from([None, None, None, 40]),
)  # fmt: skip
DID = st.tuples(st.just("did"), st.sampled_from(USERS), st.integers(0, 39).map(lambda row: 10 + 2 * row))
RELOADS = st.tuples(st.just("reload"), st.integers(0, 1))


class Did:
    """An event of a history."""

    type = "view"

    def __init__(self, user_id: int, item_id: int) -> None:
        self.user_id, self.item_id = user_id, item_id


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[LiveBundle]:
    """Two bundles of the same users and items with different vectors."""
    root = tmp_path_factory.mktemp("bundles")
    data = tiny_dataset()
    found = []
    for seed in (7, 8):
        models = trained_models(data, seed=seed)
        vectors = models["als"].arrays["item_vectors"]
        vectors[:] = vectors[:: 1 if seed == 7 else -1].copy()
        found.append(go_live(load_bundle(write_tiny_bundle(root, dataset=data, models=models))))
    return found


def experiments_in(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "experiments.toml").write_text(EXPERIMENTS)


@contextlib.asynccontextmanager
async def serving(
    folder: Path, bundles: list[LiveBundle], *, most: int, **changes: Any
) -> AsyncIterator[tuple[RecoApp, httpx.AsyncClient]]:
    experiments_in(folder)
    chosen = {
        "history": "memory",
        "events_dir": folder / "events",
        "experiments": folder / "experiments.toml",
    }
    settings = settings_for(folder, response_cache=most, **{**chosen, **changes})
    async with running(settings, live=bundles[0]) as (app, client):
        yield app, client


async def counted(client: httpx.AsyncClient) -> dict[str, int]:
    metrics = (await client.get("/metrics")).text
    return {result: int(count) for result, count in _SAMPLE.findall(metrics)}


def comparable(answer: httpx.Response) -> Any:
    headers = {name: value for name, value in answer.headers.items() if name != "server-timing"}
    return answer.status_code, headers, answer.content


async def test_kept_answers_are_those_computed_whatever_happens_between(
    tmp_path: Path, bundles: list[LiveBundle]
) -> None:
    async with (
        serving(tmp_path / "kept", bundles, most=24) as (kept, keeps),
        serving(tmp_path / "computed", bundles, most=0) as (computed, computes),
    ):
        apps, steps = (kept, computed), draw_steps()
        for number, step in enumerate(steps):
            if step[0] == "reload":
                for app in apps:
                    app.state.services.serving.live = bundles[step[1]]
            elif step[0] == "did":
                for app in apps:
                    history = app.state.services.history
                    assert isinstance(history, MemoryHistory)
                    await history.append([Did(step[1], step[2])])
            else:
                _, user, model, k = step
                path = f"/reco/{model}/{user}" + ("" if k is None else f"?k={k}")
                headers = {**BEARER, "X-Request-Id": f"one-{number}"}  # chance is seeded by it
                one, other = [await client.get(path, headers=headers) for client in (keeps, computes)]
                assert comparable(one) == comparable(other), (number, step)
        counts = await counted(keeps)
        assert counts["hit"] > 100
        assert counts["miss"] > 100
        assert await counted(computes) == {}
        assert len(kept.state.services.cache) <= 24


def draw_steps() -> list[Any]:
    """Requests with events and reloads among them, the same in every run."""
    steps: list[Any] = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.one_of(*[REQUESTS] * 8, DID, RELOADS), min_size=20, max_size=40))
    def draw(found: list[Any]) -> None:
        steps.extend(found)

    draw()
    return steps


async def test_what_chance_chose_is_never_kept(tmp_path: Path, bundles: list[LiveBundle]) -> None:
    async with serving(tmp_path, bundles, most=100) as (_, client):
        asked = [f"/reco/knn/{user}" for user in USERS[:4] for _ in range(8)]
        answers = [await client.get(path, headers=BEARER) for path in asked]
        curious = {answer.url.path for answer in answers if "curious" in answer.headers["x-reco-treatment"]}
        assert curious
        for path in curious:
            assert len({answer.content for answer in answers if answer.url.path == path}) > 1


async def test_what_left_a_stage_out_is_never_kept(tmp_path: Path, bundles: list[LiveBundle]) -> None:
    async with serving(tmp_path, bundles, most=100) as (app, client):
        late = await client.get("/reco/ease/100", headers={**BEARER, "X-Reco-Budget-Ms": "0.000001"})
        assert late.headers["x-reco-degraded"]
        whole = await client.get("/reco/ease/100", headers=BEARER)
        assert "x-reco-degraded" not in whole.headers
        assert whole.content != late.content
        assert len(app.state.services.cache) == 1
        again = await client.get("/reco/ease/100", headers={**BEARER, "X-Reco-Budget-Ms": "0.000001"})
        assert again.content == whole.content  # and it costs nothing that a budget could forbid


async def test_a_kept_answer_is_counted_logged_and_refused_like_any(
    tmp_path: Path, bundles: list[LiveBundle]
) -> None:
    async with serving(tmp_path, bundles, most=100) as (_, client):
        for _ in range(3):
            answer = await client.get("/reco/ease/100", headers=BEARER)
            assert (
                answer.headers["server-timing"].startswith("total;")
                or "retrieve" in answer.headers["server-timing"]
            )
        assert (await client.get("/reco/ease/100")).status_code == 401
        assert (await client.get("/reco/ease/100?k=0", headers=BEARER)).status_code == 422
        assert await counted(client) == {"hit": 2, "miss": 1}
        metrics = (await client.get("/metrics")).text
        assert 'reco_requests_total{model="ease",status="200"} 3.0' in metrics
        assert 'reco_source_total{model="ease",source="personal"} 3.0' in metrics
        assert 'reco_stage_duration_seconds_count{model="ease",stage="retrieve"} 1.0' in metrics
    shown = [record for record in read_records(tmp_path / "events") if record.get("type") == "impression"]
    assert len(shown) == 3
    assert len({record["event_id"] for record in shown}) == 3
    assert len({str(record["items"]) for record in shown}) == 1
