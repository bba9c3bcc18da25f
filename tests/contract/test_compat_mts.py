"""Profile mts: whitelists, exact search beside the approximate one, 404 for whom nobody knows, `detail` errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from factories import tiny_dataset, write_tiny_bundle
from running import BEARER, running, settings_for

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore

ANN = "/api/v1/recommend_for_user"
EXACT = ["/api/v1/recommend_bruteforce", "/recommend_bruteforce"]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue large enough for the graph index to be walked."""
    root = tmp_path_factory.mktemp("indexed")
    write_tiny_bundle(root, dataset=tiny_dataset(n_users=300, n_items=1500, events_per_user=12), index="hnsw")
    return root


@pytest.fixture
async def client(indexed: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(indexed, profiles="mts", retriever="hnsw")) as (_, client):
        client.headers.update(BEARER)
        yield client


async def items_of(
    client: httpx.AsyncClient, path: str, user_id: int, whitelist: list[int] | None = None
) -> list[int]:
    asked: dict[str, Any] = {"user_id": user_id}
    if whitelist is not None:
        asked["item_whitelist"] = whitelist
    response = await client.post(path, json=asked)
    assert response.status_code == 200, response.text
    body = response.json()
    assert list(body) == ["user_id", "item_ids"]
    assert body["user_id"] == user_id
    assert len(set(body["item_ids"])) == len(body["item_ids"])
    found: list[int] = body["item_ids"]
    return found


@pytest.mark.parametrize("path", [ANN, *EXACT])
async def test_fifty_items_whether_the_whitelist_is_empty_or_absent(
    client: httpx.AsyncClient, path: str
) -> None:
    everything = await items_of(client, path, 100)
    assert len(everything) == 50
    assert everything == await items_of(client, path, 100, [])


@pytest.mark.parametrize("path", [ANN, *EXACT])
async def test_a_whitelist_never_returns_too_few(client: httpx.AsyncClient, path: str, indexed: Path) -> None:
    bundle = load_bundle(ArtifactStore(indexed).current())
    catalogue = bundle.item_ids.take(np.arange(1500))
    for size in (1, 3, 49, 50, 51, 400, 1500):
        whitelist = catalogue[:: 1500 // size][:size]
        for user_id in (100, 400, 700):
            seen = bundle.item_ids.take(bundle.history_of(bundle.user_ids.row_of(user_id)))
            found = await items_of(client, path, user_id, whitelist)
            assert set(found) <= set(whitelist) - set(seen)
            assert len(found) == min(50, len(set(whitelist) - set(seen)))


async def test_a_narrow_whitelist_is_answered_exactly(client: httpx.AsyncClient) -> None:
    for user_id in range(100, 160, 3):
        whitelist = [10 + 2 * row for row in range(user_id % 7, 1500, 40)]
        assert await items_of(client, ANN, user_id, whitelist) == await items_of(
            client, EXACT[0], user_id, whitelist
        )


async def test_the_approximate_route_finds_nearly_what_brute_force_finds(client: httpx.AsyncClient) -> None:
    shares = []
    for user_id in range(100, 400, 15):
        exact = await items_of(client, EXACT[0], user_id)
        shares.append(len(set(exact) & set(await items_of(client, ANN, user_id))) / len(exact))
    assert sum(shares) / len(shares) > 0.8


async def test_brute_force_is_the_exact_scan_itself(client: httpx.AsyncClient, indexed: Path) -> None:
    async with running(settings_for(indexed, retriever="exact")) as (_, exact):
        for user_id in (100, 250, 409):
            scanned = (await exact.get(f"/reco/default/{user_id}?k=50", headers=BEARER)).json()["items"]
            assert await items_of(client, EXACT[1], user_id) == scanned


@pytest.mark.parametrize("path", [ANN, *EXACT])
async def test_whom_or_what_nobody_knows_is_a_404_in_its_words(client: httpx.AsyncClient, path: str) -> None:
    for asked in ({"user_id": 99}, {"user_id": "nobody"}, {"user_id": 100, "item_whitelist": [11, 13]}):
        response = await client.post(path, json=asked)
        assert response.status_code == 404
        assert response.json() == {"detail": "Item or user not found"}


async def test_unknown_items_beside_known_ones_are_passed_over(client: httpx.AsyncClient) -> None:
    assert await items_of(client, ANN, 700, [11, 3000]) in ([3000], [])


async def test_malformed_requests_are_listed_under_detail(client: httpx.AsyncClient) -> None:
    response = await client.post(ANN, json={"user_id": True, "item_whitelist": 5})
    assert response.status_code == 422
    assert [fault["loc"] for fault in response.json()["detail"]] == [
        ["body", "user_id"],
        ["body", "item_whitelist"],
    ]
    assert (await client.get(ANN)).json() == {"detail": "Method Not Allowed"}
    assert (
        await client.post(ANN, content=b"{", headers={"Content-Type": "application/json"})
    ).status_code == 400


async def test_the_routes_ask_for_a_token_unless_opened(indexed: Path) -> None:
    async with running(settings_for(indexed, profiles="mts")) as (_, client):
        refused = await client.post(ANN, json={"user_id": 100})
        assert refused.status_code == 401
        assert list(refused.json()) == ["detail"]
    async with running(settings_for(indexed, profiles="mts", compat_auth=False)) as (_, client):
        assert (await client.post(ANN, json={"user_id": 100})).status_code == 200
        assert (await client.post("/v1/recommend", json={"user_id": 100})).status_code == 401
        assert (await client.get("/reco/als/100")).status_code == 401


async def test_without_the_profile_there_is_nothing(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        for path in (ANN, *EXACT):
            assert (await client.post(path, json={"user_id": 100}, headers=BEARER)).status_code == 404


async def test_brute_force_follows_the_bundle_that_is_live(indexed: Path, artifacts: Path) -> None:
    async with (
        running(settings_for(indexed, profiles="mts", retriever="hnsw")) as (app, client),
        running(settings_for(artifacts)) as (other, _),
    ):
        client.headers.update(BEARER)
        before = await client.post(EXACT[0], json={"user_id": 100})
        app.state.services.serving.live = other.state.services.serving.live
        after = await client.post(EXACT[0], json={"user_id": 100})
        assert before.headers["x-reco-bundle"] != after.headers["x-reco-bundle"]
        assert max(after.json()["item_ids"]) < 90
