"""POST /v1/explain, and the profile that answers GET /explain/{model}/{user}/{item}."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import BEARER, running, settings_for


@pytest.fixture
async def client(artifacts: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(artifacts, profiles="explain")) as (_, client):
        client.headers.update(BEARER)
        yield client


async def explained(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.post("/v1/explain", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("model", ["als", "knn", "ease"])
async def test_what_is_told_and_what_is_left_out_add_up(client: httpx.AsyncClient, model: str) -> None:
    told = await explained(client, user_id=100, item_id=14, model=model, most=3)
    assert len(told["contributions"]) == 3
    total = sum(one["weight"] for one in told["contributions"]) + told["others"] + told["remainder"]
    assert told["score"] == pytest.approx(total, rel=1e-5, abs=1e-6)
    assert told["title"] == "Title 2"
    assert told["text"].startswith("You know Title")
    assert (told["method"], told["model"]) == ("parts", model)


async def test_a_live_history_is_explained_by_itself(client: httpx.AsyncClient) -> None:
    told = await explained(client, history=[10, 18], item_id=14, model="ease")
    assert {one["item_id"] for one in told["contributions"]} == {10, 18}
    assert told["remainder"] == pytest.approx(0.0, abs=1e-6)


async def test_the_explained_score_is_the_served_one(client: httpx.AsyncClient) -> None:
    slate = (await client.post("/v1/recommend", json={"user_id": 103, "k": 5, "model": "als"})).json()
    for item in slate["items"]:
        told = await explained(client, user_id=103, item_id=item["item_id"], model="als")
        assert told["score"] == pytest.approx(item["score"], rel=1e-4)


async def test_popularity_speaks_to_newcomers(client: httpx.AsyncClient) -> None:
    told = await explained(client, user_id=5, item_id=10)
    assert (told["method"], told["text"]) == ("popular", "It is popular.")
    assert told["place"] >= 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"item_id": 10}, 422),
        ({"user_id": "x", "item_id": 10}, 422),
        ({"user_id": 100, "item_id": 11}, 404),
        ({"user_id": 100, "item_id": 10, "model": "nothing"}, 404),
        ({"user_id": 10**10, "item_id": 10}, 404),
        ({"user_id": 100, "item_id": 10, "history": ["x"]}, 422),
        ({"user_id": 100, "item_id": 10, "most": 0}, 422),
    ],
)
async def test_faults_are_problems(client: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    response = await client.post("/v1/explain", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_factors_give_a_percentage_and_two_titles(client: httpx.AsyncClient) -> None:
    slate = (await client.post("/v1/recommend", json={"user_id": 100, "k": 1, "model": "als"})).json()
    item, s = slate["items"][0]["item_id"], slate["items"][0]["score"]
    told = await explained(client, user_id=100, item_id=item, model="als")
    answer = await client.get(f"/explain/als/100/{item}", headers={"Authorization": ""})
    first, second = (one["title"] for one in told["contributions"][:2])
    assert s >= 0.05
    assert answer.json() == {
        "p": math.floor(100 * (0.5 / (1 + math.exp(-(5 * s - 1))) + 0.5)),
        "explanation": f"Because you liked {first} and {second}",
    }


async def test_a_faint_score_gets_generic_words(client: httpx.AsyncClient) -> None:
    items = [10 + 2 * row for row in range(40)]
    scores = {
        item: (await explained(client, user_id=100, item_id=item, model="als"))["score"] for item in items
    }
    faint = min(items, key=scores.__getitem__)
    assert scores[faint] < 0.05
    answer = (await client.get(f"/explain/als/100/{faint}")).json()
    assert answer == {"p": 50, "explanation": "It may be something new for you"}


async def test_lists_give_the_softmax_of_their_scores(client: httpx.AsyncClient) -> None:
    slate = (await client.post("/v1/recommend", json={"user_id": 100, "k": 7, "model": "lists"})).json()
    own = [item for item in slate["items"] if item["source"] == "personal"]
    total = sum(math.exp(item["score"] - own[0]["score"]) for item in own)
    answer = (await client.get(f"/explain/lists/100/{own[0]['item_id']}")).json()
    name = (await explained(client, user_id=100, item_id=own[0]["item_id"], model="lists"))["title"]
    assert answer == {"p": math.floor(100 / total), "explanation": f"Users like you also liked {name}"}


async def test_newcomers_are_told_what_is_popular(client: httpx.AsyncClient) -> None:
    answer = await client.get("/explain/als/5/10")
    assert answer.json() == {"p": 85, "explanation": "Popular now"}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/explain/als/100/11", "item_not_found"),
        ("/explain/als/9999999999/10", "user_not_found"),
        ("/explain/nothing/100/10", "model_not_found"),
    ],
)
async def test_what_does_not_exist_is_404_in_the_services_envelope(
    client: httpx.AsyncClient, path: str, key: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["errors"][0]["error_key"]) == (404, key)


async def test_the_profile_is_off_unless_asked_for(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        assert (await client.get("/explain/als/100/10")).status_code == 404
