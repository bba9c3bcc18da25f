"""Experiments over HTTP: the treatment that is served is the one that is disclosed and the one that is logged."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from running import BEARER, PATIENCE_S, TOKEN, ask, running, settings_for
from scipy.stats import chisquare

from service.app import create_app
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.client import AsyncRecoClient, Question
from service.domain import AttributeCap, Deadline, Exploration, Plan, Query, Reranking
from service.errors import InputError
from service.events.reading import read_records
from service.policy.assignment import chance_of
from service.recommender.live import go_live
from service.recommender.pipeline import recommend

EXPERIMENTS = """
[experiments.ranking]
control = "same"
on = ["default"]
[experiments.ranking.treatments.same]
[experiments.ranking.treatments.knn]
model = "knn"

[experiments.curious]
layer = "exploration"
control = "none"
traffic = 0.8
[experiments.curious.treatments.none]
[experiments.curious.treatments.some]
n_candidates = 15
exploration = { kind = "epsilon", epsilon = 0.3 }
[experiments.curious.treatments.more]
n_candidates = 15
exploration = { kind = "softmax", temperature = 1.0 }
"""
HOW = {"some": Exploration("epsilon", 0.3), "more": Exploration("softmax", 1.0)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "experiments.toml"
    file.write_text(EXPERIMENTS, encoding="utf-8")
    return file


def parsed(header: str | None) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in (header or "").split(",") if pair)


async def test_what_is_served_is_what_is_disclosed_and_logged(
    artifacts: Path, tmp_path: Path, file: Path
) -> None:
    folder = tmp_path / "events"
    shown: dict[str, Any] = {}
    async with running(settings_for(artifacts, events_dir=folder, experiments=file)) as (_, client):
        client.headers.update(BEARER)
        for user in range(100, 220, 3):
            hot = await client.get(f"/reco/default/{user}?k=5", headers={"X-Request-Id": f"hot-{user}"})
            one = await client.post("/v1/recommend", json={"user_id": user, "k": 5})
            batch = await client.post("/v1/recommend:batch", json={"queries": [{"user_id": user, "k": 5}]})
            answer, batched = one.json(), batch.json()["results"][0]["answer"]
            treatments = parsed(hot.headers.get("x-reco-treatment"))
            assert treatments == answer["treatments"] == batched["treatments"]
            assert treatments == parsed(one.headers.get("x-reco-treatment"))
            model = "knn" if treatments["ranking"] == "knn" else "als"
            assert model == hot.headers["x-reco-model"] == answer["model"] == batched["model"]
            shown[f"hot-{user}"] = (treatments, hot.json()["items"])
            for event_id, told in ((answer["request_id"], answer), (f"{batched['request_id']}/0", batched)):
                shown[event_id] = (treatments, [item["item_id"] for item in told["items"]])
    records = {record["event_id"]: record for record in read_records(folder)}
    assert set(records) == set(shown)
    for event_id, (treatments, items) in shown.items():
        record = records[event_id]
        assert (record["treatments"], record["items"]) == (treatments, items)
        assert (record["propensities"] is not None) == (treatments.get("curious") in HOW)
    explored = [record for record in records.values() if record["propensities"]]
    assert any(min(record["propensities"]) < 1 for record in explored)


async def test_a_replay_from_the_log_gives_the_same_slates(
    artifacts: Path, tmp_path: Path, file: Path
) -> None:
    folder = tmp_path / "events"
    async with running(settings_for(artifacts, events_dir=folder, experiments=file)) as (_, client):
        client.headers.update(BEARER)
        for user in range(100, 220, 3):
            await client.get(f"/reco/als/{user}?k=5")
            await client.post("/v1/recommend", json={"user_id": user, "k": 5})
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))
    explored = 0
    for record in read_records(folder):
        how = HOW.get(record["treatments"].get("curious", ""))
        query = Query(record["user_id"], 5, seed=chance_of(record["event_id"], record["user_id"]))
        plan = Plan(record["model"], 15, how) if how else Plan(record["model"])
        slate = recommend(query, plan, live, Deadline.none())
        assert slate.item_ids == record["items"]
        assert record["propensities"] == (None if slate.propensities is None else list(slate.propensities))
        explored += how is not None
    assert explored > 10


async def test_users_are_divided_as_declared(artifacts: Path, file: Path) -> None:
    async with running(settings_for(artifacts, experiments=file)) as (app, client):
        found: Counter[str] = Counter()
        for user in range(10_000):
            reply = await ask(app, b"/reco/default/%d" % user, query=b"k=1")
            assert reply.status == 200
            found.update((reply.header(b"x-reco-treatment") or b"").decode().split(","))
            if user % 100 == 0:
                await asyncio.sleep(0)
        metrics = (await client.get("/metrics")).text
    assert chisquare([found["ranking=same"], found["ranking=knn"]]).pvalue > 1e-4
    curious = [found[f"curious={name}"] for name in ("none", "some", "more")]
    assert chisquare([*curious, 10_000 - sum(curious)], [8_000 / 3] * 3 + [2_000]).pvalue > 1e-4
    counted = (
        f'reco_experiment_assignments_total{{experiment="ranking",treatment="knn"}} {found["ranking=knn"]}.0'
    )
    assert counted in metrics


async def test_without_experiments_nothing_is_said_of_them(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        answer = await client.get("/reco/default/100", headers=BEARER)
    assert "x-reco-treatment" not in answer.headers


async def test_a_caller_without_id_is_in_none(artifacts: Path, file: Path) -> None:
    async with running(settings_for(artifacts, experiments=file)) as (_, client):
        answer = await client.post("/v1/recommend", json={"history": [10, 12]}, headers=BEARER)
    assert answer.json()["treatments"] == {}
    assert "x-reco-treatment" not in answer.headers


async def test_one_request_id_for_all_does_not_draw_all_the_same_slate(
    artifacts: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.toml"
    arm = "{ n_candidates = 30, exploration = { kind = 'epsilon', epsilon = 1.0 } }"
    file.write_text(
        f"[experiments.x]\ncontrol = 'a'\ntreatments = {{ a = {arm}, b = {arm} }}", encoding="utf-8"
    )
    async with running(settings_for(artifacts, experiments=file)) as (_, client):
        client.headers.update({**BEARER, "X-Request-Id": "always-this"})
        slates = {
            tuple((await client.get(f"/reco/popular/{user}?k=5")).json()["items"]) for user in range(1, 40)
        }
    assert len(slates) > 30


async def test_experiments_follow_the_clock(artifacts: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text(
        "[experiments.x]\ncontrol = 'a'\nend = 2026-01-05T00:00:00Z\ntreatments = { a = {}, b = {} }",
        encoding="utf-8",
    )
    now = 1_767_571_199.0  # a second before
    app = create_app(settings_for(artifacts, experiments=file), wall_clock=lambda: now)
    async with app.router.lifespan_context(app):
        assert (await ask(app, b"/reco/als/7")).header(b"x-reco-treatment") is not None
        now += 1
        assert (await ask(app, b"/reco/als/7")).header(b"x-reco-treatment") is None


@pytest.fixture
def unfit(tmp_path: Path) -> Path:
    file = tmp_path / "unfit.toml"
    file.write_text(EXPERIMENTS.replace('model = "knn"', 'model = "nope"'), encoding="utf-8")
    return file


async def test_a_file_that_is_not_fit_ends_the_start_up(artifacts: Path, unfit: Path) -> None:
    app = create_app(settings_for(artifacts, experiments=unfit))
    with pytest.raises(
        InputError, match=r"\[experiments\.ranking\.treatments\.knn\] model: .* no model 'nope'"
    ):
        async with app.router.lifespan_context(app):
            pass


async def test_the_client_tells_the_treatments(artifacts: Path, file: Path) -> None:
    async with (
        running(settings_for(artifacts, experiments=file)) as (app, _),
        AsyncRecoClient("http://service", token=TOKEN, transport=httpx.ASGITransport(app=app)) as client,
    ):
        for user in range(100, 130, 3):
            hot = await client.recommend(user)
            slate = await client.v1_recommend(Question(user))
            assert hot.treatments == slate.treatments
            assert hot.treatments["ranking"] in ("same", "knn")


async def test_a_shadow_plan_is_compared_and_changes_no_answer(artifacts: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text("[shadows.other]\nmodel = 'knn'\non = ['als']\n", encoding="utf-8")
    paths = [f"/reco/als/{user}?k=5" for user in range(100, 130, 3)]
    async with running(settings_for(artifacts)) as (_, client):
        alone = [(await client.get(path, headers=BEARER)).json() for path in paths]
    async with running(settings_for(artifacts, experiments=file)) as (_, client):
        beside = [await client.get(path, headers=BEARER) for path in paths]
        await client.get("/reco/knn/100", headers=BEARER)

        async def counts() -> dict[str, float]:
            lines = (await client.get("/metrics")).text.splitlines()
            found = (line.rsplit(" ", 1) for line in lines if line.startswith("reco_shadow_runs_total{"))
            return {re.findall(r'result="(\w+)"', name)[0]: float(value) for name, value in found}

        async with asyncio.timeout(PATIENCE_S):
            while sum((await counts()).values()) != len(paths):  # noqa: ASYNC110 - what is awaited is a metric
                await asyncio.sleep(0.01)
        assert (await counts())["compared"] >= 1  # a busy machine may drop the others
    assert [answer.json() for answer in beside] == alone
    assert not any("x-reco-treatment" in answer.headers for answer in beside)


async def test_a_bundle_that_lacks_a_model_suspends_its_experiment(
    artifacts: Path, tmp_path: Path, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = tiny_dataset()
    trained = trained_models(dataset)
    del trained["knn"]
    write_tiny_bundle(tmp_path / "poorer", dataset=dataset, models=trained)
    poorer = go_live(load_bundle(ArtifactStore(tmp_path / "poorer").current()))
    async with running(settings_for(artifacts, experiments=file)) as (app, client):
        client.headers.update(BEARER)
        serving = app.state.services.serving
        before = [
            parsed((await client.get(f"/reco/default/{u}")).headers.get("x-reco-treatment"))
            for u in range(40)
        ]
        richer, serving.live = serving.live, poorer
        during = [
            parsed((await client.get(f"/reco/default/{u}")).headers.get("x-reco-treatment"))
            for u in range(40)
        ]
        serving.live = richer
        after = [
            parsed((await client.get(f"/reco/default/{u}")).headers.get("x-reco-treatment"))
            for u in range(40)
        ]
    assert all("ranking" in treatments for treatments in before)
    assert during == [
        {name: t for name, t in treatments.items() if name != "ranking"} for treatments in before
    ]
    assert after == before
    assert "an experiment is suspended" in capfd.readouterr().out


RERANKING = """
[experiments.varied]
control = "plain"
[experiments.varied.treatments.plain]
[experiments.varied.treatments.mmr]
n_candidates = 20
rerank = { method = "mmr", relevance = 0.5 }
[experiments.varied.treatments.dpp]
n_candidates = 20
rerank = { method = "dpp", relevance = 0.5, cap = { attribute = "kind", most = 3 } }
"""
ORDERS = {
    "mmr": Reranking("mmr", 0.5),
    "dpp": Reranking("dpp", 0.5, cap=AttributeCap("kind", 3)),
}


async def test_reranking_is_a_treatment_like_any_other(artifacts: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "e.toml", tmp_path / "events"
    file.write_text(RERANKING, encoding="utf-8")
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))
    changed: Counter[str] = Counter()
    async with running(settings_for(artifacts, events_dir=folder, experiments=file)) as (_, client):
        client.headers.update(BEARER)
        for user in range(100, 250, 3):
            answer = await client.get(f"/reco/als/{user}?k=5&budget_ms=2000")
            treatment = parsed(answer.headers["x-reco-treatment"])["varied"]
            query, items = Query(user, 5), answer.json()["items"]
            assert "x-reco-degraded" not in answer.headers
            plan = Plan("als", 20, reranking=ORDERS[treatment]) if treatment in ORDERS else Plan("als")
            assert items == recommend(query, plan, live, Deadline.none()).item_ids
            changed[treatment] += items != recommend(query, Plan("als"), live, Deadline.none()).item_ids
    assert changed["plain"] == 0
    assert min(changed["mmr"], changed["dpp"]) > 3
    assert {record["treatments"]["varied"] for record in read_records(folder)} == {"plain", *ORDERS}


async def test_a_cap_on_an_attribute_that_the_bundle_lacks_ends_the_start_up(
    artifacts: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.toml"
    file.write_text(RERANKING.replace('"kind"', '"artist"'), encoding="utf-8")
    app = create_app(settings_for(artifacts, experiments=file))
    with pytest.raises(
        InputError, match=r"treatments\.dpp\] rerank\.cap\.attribute: .* no attribute 'artist'"
    ):
        async with app.router.lifespan_context(app):
            pass
