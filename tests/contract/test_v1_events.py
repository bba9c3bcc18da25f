"""POST /v1/events: strict, whole or not at all, once; and impressions of what was answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import BEARER, running, settings_for

from service.api.v1_schemas import Problem
from service.events.reading import read_records

Event = dict[str, Any]


def event(named: str = "e-1", **changes: Any) -> Event:
    known = {
        "event_id": named,
        "type": "view",
        "user_id": 100,
        "item_id": 10,
        "timestamp_ms": 1_700_000_000_000,
    }
    made = {**known, **changes}
    return {name: value for name, value in made.items() if value is not ...}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture
async def client(artifacts: Path, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(artifacts, events_dir=folder)) as (_, client):
        client.headers.update(BEARER)
        yield client


async def post(client: httpx.AsyncClient, *events: Event) -> httpx.Response:
    return await client.post("/v1/events", json={"events": list(events)})


def problem_in(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return Problem.model_validate_json(response.content, strict=True)


async def test_events_are_in_the_log_when_they_are_acknowledged(
    client: httpx.AsyncClient, folder: Path
) -> None:
    answer = await post(client, event("a", value=0.5, request_id="r"), event("b", type="rating", value=4))
    assert answer.status_code == 200
    assert answer.json() == {"accepted": 2, "duplicates": 0}
    first, second = read_records(folder)
    received = first.pop("received_ms")
    assert first == {**event("a", value=0.5, request_id="r")}
    assert second["received_ms"] == received
    assert (second["type"], second["value"], second["request_id"]) == ("rating", 4.0, None)


@pytest.mark.parametrize("kind", ["impression", "view", "click", "purchase", "rating", "last"])
async def test_every_type_is_taken(client: httpx.AsyncClient, folder: Path, kind: str) -> None:
    assert (await post(client, event(type=kind))).json() == {"accepted": 1, "duplicates": 0}
    assert [record["type"] for record in read_records(folder)] == [kind]


async def test_sent_again_events_are_duplicates(client: httpx.AsyncClient, folder: Path) -> None:
    await post(client, event("a"), event("b"))
    assert (await post(client, event("b"), event("c"), event("c"))).json() == {"accepted": 1, "duplicates": 2}
    assert [record["event_id"] for record in read_records(folder)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_id": ...}, "event_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 129}, "event_id"),
        ({"event_id": 7}, "event_id"),
        ({"type": ...}, "type"),
        ({"type": "VIEW"}, "type"),
        ({"type": "like"}, "type"),
        ({"type": None}, "type"),
        ({"user_id": ...}, "user_id"),
        ({"user_id": "100"}, "user_id"),
        ({"user_id": -1}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": 100.0}, "user_id"),
        ({"user_id": 10**9 + 1}, "user_id"),
        ({"user_id": 2**63}, "user_id"),
        ({"item_id": ...}, "item_id"),
        ({"item_id": "10"}, "item_id"),
        ({"item_id": None}, "item_id"),
        ({"item_id": 10**18}, "item_id"),
        ({"timestamp_ms": ...}, "timestamp_ms"),
        ({"timestamp_ms": -1}, "timestamp_ms"),
        ({"timestamp_ms": 253_402_300_800_000}, "timestamp_ms"),
        ({"timestamp_ms": 1.5}, "timestamp_ms"),
        ({"timestamp_ms": "1700000000000"}, "timestamp_ms"),
        ({"timestamp_ms": True}, "timestamp_ms"),
        ({"value": "1"}, "value"),
        ({"value": True}, "value"),
        ({"value": [1]}, "value"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": 5}, "request_id"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_one_bad_event_is_named_and_none_of_the_batch_is_taken(
    client: httpx.AsyncClient, folder: Path, changes: Event, field: str
) -> None:
    problem = problem_in(await post(client, event("good"), event("bad", **changes), event("fine")), 422)
    assert [fault.loc for fault in problem.errors or []] == [["body", "events", 1, field]]
    assert f"events.1.{field}" in problem.detail
    assert list(read_records(folder)) == []
    assert (await post(client, event("good"))).json() == {"accepted": 1, "duplicates": 0}


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999"])
async def test_a_value_that_is_not_finite_is_refused(
    client: httpx.AsyncClient, folder: Path, value: bytes
) -> None:
    body = (
        b'{"events":[{"event_id":"a","type":"view","user_id":100,"item_id":10,"timestamp_ms":1,"value":'
        + value
        + b"}]}"
    )
    answer = await client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    problem_in(answer, 400)  # no number of JSON that a program could hold
    assert list(read_records(folder)) == []


@pytest.mark.parametrize("body", [{}, {"events": []}, {"events": None}, {"events": {}}, [], {"events": [5]}])
async def test_a_body_without_events_is_refused(client: httpx.AsyncClient, body: Any) -> None:
    problem_in(await client.post("/v1/events", json=body), 422)


async def test_a_batch_is_bounded(client: httpx.AsyncClient, folder: Path) -> None:
    batch = [event(str(number)) for number in range(1001)]
    problem = problem_in(await post(client, *batch), 422)
    assert [fault.loc for fault in problem.errors or []] == [["body", "events"]]
    assert list(read_records(folder)) == []
    assert (await post(client, *batch[:1000])).json() == {"accepted": 1000, "duplicates": 0}
    problem_in(await post(client, *[event("x" * 128, request_id="y" * 128)] * 5000), 413)


async def test_string_ids_are_for_bundles_that_have_them(str_artifacts: Path, tmp_path: Path) -> None:
    async with running(settings_for(str_artifacts, events_dir=tmp_path)) as (_, client):
        client.headers.update(BEARER)
        good = event("a", user_id="new user", item_id="item/001")
        assert (await post(client, good)).json() == {"accepted": 1, "duplicates": 0}
        problem = problem_in(await post(client, event("b", user_id="u", item_id=10)), 422)
        assert [fault.loc for fault in problem.errors or []] == [["body", "events", 0, "item_id"]]


async def test_without_a_folder_there_is_no_such_route(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        answer = await client.post("/v1/events", json={"events": [event()]}, headers=BEARER)
        assert problem_in(answer, 404).type == "urn:reco:problem:not_found"


async def test_a_log_that_is_broken_is_a_503_to_come_back_after(artifacts: Path, folder: Path) -> None:
    async with running(settings_for(artifacts, events_dir=folder)) as (app, client):
        await app.state.services.events.close()
        answer = await client.post("/v1/events", json={"events": [event()]}, headers=BEARER)
        problem = problem_in(answer, 503)
        assert problem.type == "urn:reco:problem:events_unavailable"
        assert answer.headers["retry-after"] == "1"
        assert (await client.get("/reco/default/100", headers=BEARER)).status_code == 200


async def test_a_token_is_asked_for_before_the_body(client: httpx.AsyncClient, folder: Path) -> None:
    client.headers.pop("authorization")
    problem_in(await post(client, event()), 401)
    problem_in(await client.post("/v1/events", content=b"{"), 401)
    assert list(read_records(folder)) == []


async def test_every_answer_leaves_its_impression(artifacts: Path, folder: Path) -> None:
    async with running(settings_for(artifacts, events_dir=folder)) as (_, client):
        client.headers.update(BEARER)
        hot = await client.get("/reco/default/100?k=3", headers={"X-Request-Id": "hot-1"})
        one = await client.post("/v1/recommend", json={"user_id": 103, "model": "knn", "k": 4})
        anonymous = await client.post("/v1/recommend", json={"history": [10, 12]})
        queries = [{"user_id": 106}, {"user_id": -1}, {"user_id": 9_999_999}]
        batch = await client.post("/v1/recommend:batch", json={"queries": queries})
        await client.head("/reco/default/100")
        await client.get("/reco/nope/100")
        await client.get("/reco/default/100?k=0")
    records = {record["event_id"]: record for record in read_records(folder)}
    ids = [answer.json()["request_id"] for answer in (one, anonymous, batch)]
    assert list(records) == ["hot-1", ids[0], ids[1], f"{ids[2]}/0", f"{ids[2]}/2"]
    shown = records["hot-1"]
    assert shown["items"] == hot.json()["items"]
    assert (shown["request_id"], shown["user_id"], shown["model"]) == ("hot-1", 100, "als")
    assert (shown["bundle"], shown["source"]) == (hot.headers["x-reco-bundle"], hot.headers["x-reco-source"])
    assert (shown["treatments"], shown["propensities"], shown["degraded"]) == ({}, None, [])
    assert len(shown["scores"]) == 3
    assert shown["latency_ms"] > 0
    explained = one.json()
    assert records[ids[0]]["items"] == [item["item_id"] for item in explained["items"]]
    assert records[ids[0]]["scores"] == [item["score"] for item in explained["items"]]
    assert (records[ids[0]]["user_id"], records[ids[0]]["model"]) == (103, "knn")
    assert records[ids[1]]["user_id"] is None
    answers = [result["answer"] for result in batch.json()["results"] if result.get("answer")]
    for place, answer in zip((0, 2), answers, strict=True):
        record = records[f"{ids[2]}/{place}"]
        assert record["items"] == [item["item_id"] for item in answer["items"]]
        assert record["request_id"] == ids[2]
        assert record["user_id"] == queries[place]["user_id"]
        assert record["source"] == answer["source"]
