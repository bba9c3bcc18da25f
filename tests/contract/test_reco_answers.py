"""GET /reco/{model}/{user_id}: what a caller gets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from factories import tiny_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import AUTHORIZED, BEARER, ask, running, settings_for

from service.app import RecoApp

DATASET = tiny_dataset()
WARM = DATASET.user_ids.take(DATASET.user_rows[:1])[0]
CATALOGUE = set(DATASET.item_ids.take(DATASET.item_rows)) | set(range(10, 10 + 2 * DATASET.n_items, 2))
MODELS = ("popular", "als", "knn", "ease", "lists", "default")


@pytest_asyncio.fixture
async def served(artifacts: Path) -> AsyncIterator[tuple[RecoApp, httpx.AsyncClient]]:
    async with running(settings_for(artifacts)) as pair:
        yield pair


def seen_by(user_id: int) -> set[int]:
    row = DATASET.user_ids.row_of(user_id)
    return set(DATASET.item_ids.take(DATASET.item_rows[DATASET.user_rows == row]))


async def test_the_body_is_the_users_id_and_items(served: tuple[RecoApp, httpx.AsyncClient]) -> None:
    _, client = served
    response = await client.get(f"/reco/als/{WARM}", headers=BEARER)
    assert response.status_code == 200
    body = response.json()
    assert list(body) == ["user_id", "items"]
    assert body["user_id"] == WARM
    assert len(body["items"]) == len(set(body["items"])) == 10
    assert set(body["items"]) <= CATALOGUE - seen_by(WARM)


@pytest.mark.parametrize("model", MODELS)
async def test_every_model_answers_every_user_with_k_unseen_items(
    served: tuple[RecoApp, httpx.AsyncClient], model: str
) -> None:
    _, client = served
    for user_id in [*DATASET.user_ids.take(DATASET.user_rows[::40]), 1, 10**9]:
        items = (await client.get(f"/reco/{model}/{user_id}?k=20", headers=BEARER)).json()["items"]
        assert len(items) == len(set(items)) == 20, (model, user_id)
        assert not set(items) & seen_by(user_id)


async def test_an_unknown_user_gets_what_is_popular(served: tuple[RecoApp, httpx.AsyncClient]) -> None:
    _, client = served
    answer = await client.get("/reco/als/10", headers=BEARER)
    popular = await client.get("/reco/popular/11", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["X-Reco-Source"] == "popular"
    assert answer.json()["items"] == popular.json()["items"]


async def test_headers_disclose_what_answered(served: tuple[RecoApp, httpx.AsyncClient]) -> None:
    app, client = served
    response = await client.get(f"/reco/default/{WARM}", headers=BEARER)
    headers = response.headers
    assert headers["X-Reco-Bundle"] == app.state.services.serving.live.bundle_id
    assert headers["X-Reco-Model"] == "als"
    assert headers["X-Reco-Source"] == "personal"
    assert "X-Reco-Degraded" not in headers
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) == len(response.content)
    assert re.fullmatch(r"(\w+;dur=\d+\.\d{3}, )+total;dur=\d+\.\d{3}", headers["Server-Timing"])
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


async def test_a_tame_request_id_is_kept_and_a_wild_one_replaced(
    served: tuple[RecoApp, httpx.AsyncClient],
) -> None:
    app, _ = served
    kept = await ask(app, b"/reco/als/1", headers=[AUTHORIZED, (b"x-request-id", b"Trace-7.b_c")])
    assert kept.header(b"x-request-id") == b"Trace-7.b_c"
    given_out = set()
    for wild in (b"", b"a b", b"x" * 65, b"\xff", b"a\r\nb", b"<script>"):
        reply = await ask(app, b"/reco/als/1", headers=[AUTHORIZED, (b"x-request-id", wild)])
        request_id = reply.header(b"x-request-id")
        assert request_id is not None
        assert re.fullmatch(rb"[a-f0-9-]{10,64}", request_id)
        given_out.add(request_id)
    assert len(given_out) == 6


async def test_k_defaults_to_the_setting_and_follows_the_query(artifacts: Path) -> None:
    async with running(settings_for(artifacts, k=4, k_max=6)) as (_, client):
        assert len((await client.get("/reco/als/1", headers=BEARER)).json()["items"]) == 4
        assert len((await client.get("/reco/als/1?k=6&utm=x", headers=BEARER)).json()["items"]) == 6
        assert (await client.get("/reco/als/1?k=7", headers=BEARER)).status_code == 422


async def test_k_above_the_catalogue_gives_all_that_is_unseen(
    served: tuple[RecoApp, httpx.AsyncClient],
) -> None:
    _, client = served
    items = (await client.get(f"/reco/als/{WARM}?k=200", headers=BEARER)).json()["items"]
    assert len(items) == len(set(items)) == DATASET.n_items - len(seen_by(WARM))


async def test_head_is_get_without_the_body(served: tuple[RecoApp, httpx.AsyncClient]) -> None:
    _, client = served
    get = await client.get("/reco/als/1", headers=BEARER)
    head = await client.head("/reco/als/1", headers=BEARER)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert set(head.headers) == set(get.headers)


async def test_two_requests_of_one_user_agree(served: tuple[RecoApp, httpx.AsyncClient]) -> None:
    _, client = served
    answers = [(await client.get(f"/reco/knn/{WARM}", headers=BEARER)).content for _ in range(3)]
    assert len(set(answers)) == 1


async def test_string_ids_are_served_as_strings(str_artifacts: Path) -> None:
    async with running(settings_for(str_artifacts)) as (_, client):
        warm = (await client.get("/reco/als/u003", headers=BEARER)).json()
        assert warm["user_id"] == "u003"
        assert all(isinstance(item, str) and item.startswith("item/") for item in warm["items"])
        for stranger in ("12345678901234567890", "Zoë/é", 'a"b\\c', "日本"):
            response = await client.get(f"/reco/als/{quote(stranger, safe='')}", headers=BEARER)
            assert (response.status_code, response.json()["user_id"]) == (200, stranger)
            assert response.headers["X-Reco-Source"] == "popular"
        for bad in ("%ff", "a%00", "%0d%0aX-Evil:1", "a" * 257):
            assert (await client.get(f"/reco/als/{bad}", headers=BEARER)).status_code == 422


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    model=st.binary(max_size=20),
    user=st.binary(max_size=30) | st.integers(-10, 10**20).map(lambda n: str(n).encode()),
    query=st.binary(max_size=30),
    extra=st.lists(
        st.tuples(st.sampled_from([b"x-reco-budget-ms", b"x-request-id", b"origin"]), st.binary(max_size=20)),
        max_size=3,
    ),
)
async def test_no_request_whatever_is_a_server_error(
    served: tuple[RecoApp, httpx.AsyncClient],
    model: bytes,
    user: bytes,
    query: bytes,
    extra: list[tuple[bytes, bytes]],
) -> None:
    app, _ = served
    for name in (model, b"als"):
        reply = await ask(app, b"/reco/" + name + b"/" + user, query=query, headers=[AUTHORIZED, *extra])
        assert reply.status in (200, 404, 422)
        document = httpx.Response(reply.status, content=reply.body).json()
        assert ("items" in document) if reply.status == 200 else set(document) == {"errors"}
