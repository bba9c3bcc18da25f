"""POST /v1/recommend: answers, filters, histories, budgets, headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import BEARER, running, settings_for

from service.api.v1_schemas import RecommendAnswer

PATH = "/v1/recommend"


@pytest.fixture
async def client(artifacts: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(artifacts)) as (_, client):
        client.headers.update(BEARER)
        yield client


@pytest.fixture
async def str_client(str_artifacts: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(str_artifacts)) as (_, client):
        client.headers.update(BEARER)
        yield client


async def answer_to(client: httpx.AsyncClient, **asked: Any) -> RecommendAnswer:
    response = await client.post(PATH, json=asked)
    assert response.status_code == 200, response.text
    return RecommendAnswer.model_validate_json(response.content, strict=True)


def ids(answer: RecommendAnswer) -> list[int | str]:
    return [item.item_id for item in answer.items]


class TestAnswers:
    async def test_it_names_request_bundle_model_source_and_timings(self, client: httpx.AsyncClient) -> None:
        response = await client.post(PATH, json={"user_id": 100, "k": 5}, headers={"X-Request-Id": "mine-1"})
        body = response.json()
        told = ["request_id", "bundle", "model", "treatments", "source", "degraded", "items", "timings_ms"]
        assert list(body) == told
        assert body["treatments"] == {}
        assert "x-reco-treatment" not in response.headers
        assert body["request_id"] == response.headers["x-request-id"] == "mine-1"
        assert body["bundle"] == response.headers["x-reco-bundle"]
        assert body["model"] == response.headers["x-reco-model"] == "als"
        assert body["source"] == response.headers["x-reco-source"] == "personal"
        assert body["degraded"] == []
        assert "x-reco-degraded" not in response.headers
        assert set(body["timings_ms"]) == {"retrieve", "complete"}
        assert response.headers["server-timing"].split(";")[0] == "retrieve"

    @pytest.mark.parametrize("model", ["als", "knn", "ease", "lists", "popular", "default"])
    async def test_it_gives_the_items_that_the_hot_route_gives(
        self, client: httpx.AsyncClient, model: str
    ) -> None:
        for user_id in (100, 103, 274, 5):
            hot = await client.get(f"/reco/{model}/{user_id}?k=7")
            answer = await answer_to(client, user_id=user_id, model=model, k=7)
            assert ids(answer) == hot.json()["items"]
            assert answer.source == hot.headers["x-reco-source"]
            assert answer.model == hot.headers["x-reco-model"]

    async def test_k_defaults_to_the_settings(self, artifacts: Path, client: httpx.AsyncClient) -> None:
        assert len((await answer_to(client, user_id=100)).items) == 10
        async with running(settings_for(artifacts, k=4)) as (_, four):
            four.headers.update(BEARER)
            assert len((await answer_to(four, user_id=100)).items) == 4

    async def test_an_unknown_user_gets_what_is_popular(self, client: httpx.AsyncClient) -> None:
        answer = await answer_to(client, user_id=7, k=3)
        assert answer.source == "popular"
        assert {item.source for item in answer.items} == {"popular"}

    async def test_scores_fall_within_a_source(self, client: httpx.AsyncClient) -> None:
        scores = [item.score for item in (await answer_to(client, user_id=100, k=10)).items]
        assert scores == sorted((score for score in scores if score is not None), reverse=True)

    async def test_string_ids_work_throughout(self, str_client: httpx.AsyncClient) -> None:
        answer = await answer_to(str_client, user_id="u000", k=3, filter={"deny": ["item/000"]})
        assert answer.source == "personal"
        assert all(isinstance(item.item_id, str) for item in answer.items)
        assert ids(await answer_to(str_client, user_id="nobody ☃", k=3))


class TestHistories:
    async def test_a_history_alone_is_folded_in_and_not_shown_again(self, client: httpx.AsyncClient) -> None:
        history = [10, 14, 18]
        answer = await answer_to(client, history=history, k=20)
        assert answer.source == "fold_in"
        assert not set(history) & set(ids(answer))

    async def test_a_history_overrides_what_is_known_of_the_user(self, client: httpx.AsyncClient) -> None:
        anonymous = await answer_to(client, history=[10, 14], k=5)
        known = await answer_to(client, user_id=100, history=[10, 14], k=5)
        assert ids(known) == ids(anonymous)

    async def test_seen_items_come_back_when_asked_for(self, client: httpx.AsyncClient) -> None:
        history = list(range(10, 90, 2))[:38]
        unseen = await answer_to(client, history=history, k=40)
        everything = await answer_to(client, history=history, k=40, exclude_seen=False)
        assert len(unseen.items) == 2
        assert len(everything.items) == 40

    async def test_an_empty_history_is_a_newcomer(self, client: httpx.AsyncClient) -> None:
        assert (await answer_to(client, history=[])).source == "popular"

    async def test_items_that_the_catalogue_lacks_are_passed_over(self, client: httpx.AsyncClient) -> None:
        with_strangers = await answer_to(client, history=[11, 10, 999_999], k=5)
        assert ids(with_strangers) == ids(await answer_to(client, history=[10], k=5))


class TestFilters:
    async def test_allow_and_deny_hold(self, client: httpx.AsyncClient) -> None:
        allow = list(range(10, 50, 2))
        answer = await answer_to(client, history=[], k=40, filter={"allow": allow, "deny": [10, 12]})
        assert set(ids(answer)) == set(allow) - {10, 12}

    async def test_an_empty_allow_list_lets_nothing_through_and_null_everything(
        self, client: httpx.AsyncClient
    ) -> None:
        assert (await answer_to(client, user_id=100, filter={"allow": []})).items == []
        assert len((await answer_to(client, user_id=100, filter={"allow": None})).items) == 10

    async def test_attributes_are_any_of_their_values_and_all_of_their_names(
        self, client: httpx.AsyncClient
    ) -> None:
        everything = {"genres": ["comedy", "drama"], "kind": ["series"]}
        answer = await answer_to(client, history=[], k=40, filter={"attributes": everything})
        assert set(ids(answer)) == {10, 30, 50, 70}
        comedies = await answer_to(client, history=[], k=40, filter={"attributes": {"genres": ["comedy"]}})
        assert set(ids(comedies)) == {10 + 2 * row for row in range(0, 40, 4)}

    async def test_an_unknown_attribute_is_named(self, client: httpx.AsyncClient) -> None:
        response = await client.post(
            PATH, json={"user_id": 100, "filter": {"attributes": {"colour": ["red"]}}}
        )
        assert response.status_code == 422
        assert response.json()["errors"][0]["loc"] == ["body", "filter", "attributes", "colour"]


class TestBudget:
    @pytest.mark.parametrize("how", ["body", "header"])
    async def test_a_budget_too_small_degrades_and_says_so(self, client: httpx.AsyncClient, how: str) -> None:
        asked: dict[str, Any] = {"user_id": 100, "k": 3}
        headers = {}
        if how == "body":
            asked["budget_ms"] = 0.000001
        else:
            headers["X-Reco-Budget-Ms"] = "0.000001"
        response = await client.post(PATH, json=asked, headers=headers)
        assert response.status_code == 200
        assert response.json()["degraded"] == ["retrieve"]
        assert response.headers["x-reco-degraded"] == "retrieve"
        assert response.json()["source"] in {"popular", "segment_popular"}
        assert len(response.json()["items"]) == 3

    async def test_a_larger_budget_than_the_service_has_changes_nothing(self, artifacts: Path) -> None:
        async with running(settings_for(artifacts, budget_ms=0.000001)) as (_, client):
            response = await client.post(
                PATH, json={"user_id": 100, "budget_ms": 1e9}, headers={**BEARER, "X-Reco-Budget-Ms": "60000"}
            )
        assert response.json()["degraded"] == ["retrieve"]

    async def test_a_budget_given_twice_in_headers_is_refused(self, client: httpx.AsyncClient) -> None:
        twice = [("X-Reco-Budget-Ms", "5"), ("X-Reco-Budget-Ms", "50")]
        response = await client.post(PATH, json={"user_id": 100}, headers=twice)
        assert response.status_code == 422


async def test_its_slates_are_counted_with_the_hot_routes(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        await client.post(PATH, json={"user_id": 100}, headers=BEARER)
        await client.post(PATH, json={"user_id": 7, "model": "knn"}, headers=BEARER)
        text = (await client.get("/metrics")).text
    assert 'reco_source_total{model="als",source="personal"} 1.0' in text
    assert 'reco_source_total{model="knn",source="popular"} 1.0' in text
    assert 'reco_http_requests_total{route="/v1/recommend",status="200"} 2.0' in text


async def test_its_log_line_tells_model_source_and_degraded(
    artifacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(settings_for(artifacts, access_log=True)) as (_, client):
        asked = {"user_id": 100, "model": "knn", "budget_ms": 0.000001}
        await client.post(PATH, json=asked, headers={**BEARER, "X-Request-Id": "mine-2"})
    line = next(json.loads(line) for line in capfd.readouterr().out.splitlines() if "mine-2" in line)
    assert (line["model"], line["source"], line["degraded"]) == ("knn", "segment_popular", ["retrieve"])
    assert line["status_code"] == 200
