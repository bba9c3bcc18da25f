"""Profile handbook: success and failure in one shape, both 200."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from running import BEARER, running, settings_for


@pytest.fixture
async def client(artifacts: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(artifacts, profiles="handbook")) as (_, client):
        client.headers.update(BEARER)
        yield client


async def test_twenty_items_with_status_success_and_no_message(client: httpx.AsyncClient) -> None:
    response = await client.get("/get_recommendation?user_id=100")
    hot = await client.get("/reco/default/100?k=20")
    assert response.json() == {"recommendations": hot.json()["items"], "status": "success", "msg": None}
    assert list(response.json()) == ["recommendations", "status", "msg"]
    assert response.headers["x-reco-source"] == "personal"


async def test_top_k_items(client: httpx.AsyncClient) -> None:
    for top_k in (1, 7, 30):
        response = await client.get(f"/get_recommendation?user_id=100&top_k={top_k}")
        assert len(response.json()["recommendations"]) == top_k


async def test_an_unknown_user_is_a_newcomer(client: httpx.AsyncClient) -> None:
    response = await client.get("/get_recommendation?user_id=5&top_k=3")
    assert response.json()["status"] == "success"
    assert len(response.json()["recommendations"]) == 3
    assert response.headers["x-reco-source"] == "popular"


FAILURES = [
    ("", "user_id"),
    ("user_id=", "user_id"),
    ("user_id=x", "user_id"),
    ("user_id=%2B1", "user_id"),
    ("user_id=+1", "user_id"),
    ("user_id=1.0", "user_id"),
    ("user_id=1_0", "user_id"),
    ("user_id=-1", "user_id"),
    ("user_id=%2531", "user_id"),
    ("user_id=%D9%A1", "user_id"),
    ("user_id=%ff", "user_id"),
    ("user_id=1&user_id=2", "user_id"),
    ("user_id=1000000001", "User 1000000001 not found"),
    ("user_id=100&top_k=0", "top_k"),
    ("user_id=100&top_k=-1", "top_k"),
    ("user_id=100&top_k=201", "top_k"),
    ("user_id=100&top_k=ten", "top_k"),
    ("user_id=100&top_k=%31%30%26k=5", "top_k"),
    ("user_id=100&top_k=1&top_k=2", "top_k"),
]


@pytest.mark.parametrize(("query", "words"), FAILURES)
async def test_what_can_not_be_answered_is_a_200_that_says_why(
    client: httpx.AsyncClient, query: str, words: str
) -> None:
    response = await client.get(f"/get_recommendation?{query}")
    assert response.status_code == 200
    body = response.json()
    assert (body["recommendations"], body["status"]) == ([], "error")
    assert words in body["msg"]


async def test_failures_can_have_null_as_in_its_code(artifacts: Path) -> None:
    async with running(settings_for(artifacts, profiles="handbook", handbook_error="null")) as (_, client):
        client.headers.update(BEARER)
        assert (await client.get("/get_recommendation?user_id=x")).json()["recommendations"] is None
        assert (await client.get("/get_recommendation")).json()["recommendations"] is None


async def test_index_maps_items_to_scores_best_first(client: httpx.AsyncClient) -> None:
    scores = (await client.get("/index?id=100")).json()
    hot = (await client.get("/reco/default/100?k=20")).json()["items"]
    assert [int(item_id) for item_id in scores] == hot
    assert (await client.get("/index?id=zzz")).json()["status"] == "error"


async def test_string_ids(str_artifacts: Path) -> None:
    async with running(settings_for(str_artifacts, profiles="handbook")) as (_, client):
        client.headers.update(BEARER)
        response = await client.get("/get_recommendation?user_id=u000&top_k=2")
        assert all(item_id.startswith("item/") for item_id in response.json()["recommendations"])
        assert next(iter((await client.get("/index?id=u001")).json())).startswith("item/")


async def test_refusals_and_outages_keep_their_status_in_the_same_shape(artifacts: Path) -> None:
    async with running(settings_for(artifacts, profiles="handbook")) as (app, client):
        refused = await client.get("/get_recommendation?user_id=100")
        assert refused.status_code == 401
        assert refused.json()["status"] == "error"
        app.state.services.serving.live = None
        unready = await client.get("/index?id=100", headers=BEARER)
        assert unready.status_code == 503
        assert unready.json()["recommendations"] == []


async def test_the_routes_open_when_told(artifacts: Path) -> None:
    async with running(settings_for(artifacts, profiles="handbook", compat_auth=False)) as (_, client):
        assert (await client.get("/get_recommendation?user_id=100")).json()["status"] == "success"
