"""Errors under /v1 are RFC 9457 problems that name the field and leak nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import BEARER, running, settings_for

from service.api.v1_schemas import Problem
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Candidates
from service.recommender.filters import Eligible
from service.recommender.live import go_live
from service.recommender.user_state import UserState

PATHS = ["/v1/recommend", "/v1/recommend:batch", "/v1/similar"]
JSON = {"Content-Type": "application/json"}


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


def problem_in(response: httpx.Response, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content, strict=True)
    assert problem.status == status
    assert problem.instance == response.headers["x-request-id"]
    assert problem.type.startswith("urn:reco:problem:")
    assert (problem.errors is not None) == (status == 422)
    return problem


def places(problem: Problem) -> list[list[str | int]]:
    return [fault.loc for fault in problem.errors or []]


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({}, ["user_id"]),
        ({"user_id": None}, ["user_id"]),
        ({"user_id": True}, ["user_id"]),
        ({"user_id": 1.0}, ["user_id"]),
        ({"user_id": -1}, ["user_id"]),
        ({"user_id": 10**18}, ["user_id"]),
        ({"user_id": 2**63}, ["user_id"]),
        ({"user_id": 10**300}, ["user_id"]),
        ({"user_id": "100"}, ["user_id"]),
        ({"user_id": ""}, ["user_id"]),
        ({"user_id": "x" * 257}, ["user_id"]),
        ({"user_id": [1]}, ["user_id"]),
        ({"user_id": 1, "k": 0}, ["k"]),
        ({"user_id": 1, "k": -1}, ["k"]),
        ({"user_id": 1, "k": 201}, ["k"]),
        ({"user_id": 1, "k": 10**9}, ["k"]),
        ({"user_id": 1, "k": "5"}, ["k"]),
        ({"user_id": 1, "k": True}, ["k"]),
        ({"user_id": 1, "k": 5.0}, ["k"]),
        ({"user_id": 1, "model": ""}, ["model"]),
        ({"user_id": 1, "model": "../als"}, ["model"]),
        ({"user_id": 1, "model": "a" * 65}, ["model"]),
        ({"user_id": 1, "exclude_seen": 1}, ["exclude_seen"]),
        ({"user_id": 1, "budget_ms": 0}, ["budget_ms"]),
        ({"user_id": 1, "budget_ms": -3}, ["budget_ms"]),
        ({"user_id": 1, "budget_ms": "5"}, ["budget_ms"]),
        ({"user_id": 1, "surprise": 1}, ["surprise"]),
        ({"history": 5}, ["history"]),
        ({"history": [10, "10"]}, ["history", 1]),
        ({"history": [10, False]}, ["history", 1]),
        ({"history": [10] * 1001}, ["history"]),
        ({"user_id": 1, "filter": {"allow": [1, None]}}, ["filter", "allow", 1]),
        ({"user_id": 1, "filter": {"allow": ["a"]}}, ["filter", "allow", 0]),
        ({"user_id": 1, "filter": {"deny": ["a"]}}, ["filter", "deny", 0]),
        ({"user_id": 1, "filter": {"deny": None}}, ["filter", "deny"]),
        ({"user_id": 1, "filter": {"other": 1}}, ["filter", "other"]),
        ({"user_id": 1, "filter": {"attributes": {"genres": "drama"}}}, ["filter", "attributes", "genres"]),
        ({"user_id": 1, "filter": {"attributes": {"genres": []}}}, ["filter", "attributes", "genres"]),
        (
            {"user_id": 1, "filter": {"attributes": {str(n): ["x"] for n in range(17)}}},
            ["filter", "attributes"],
        ),
    ],
)
async def test_a_malformed_field_is_named(
    client: httpx.AsyncClient, asked: dict[str, Any], place: list[Any]
) -> None:
    response = await client.post("/v1/recommend", content=json.dumps(asked), headers=JSON)
    problem = problem_in(response, 422)
    assert ["body", *place] in places(problem)
    assert problem.detail.startswith("body")


async def test_all_faults_are_named_at_once(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/recommend", json={"user_id": True, "k": 0, "model": ""})
    assert sorted(place[1] for place in places(problem_in(response, 422))) == ["k", "model", "user_id"]


async def test_integers_are_refused_where_ids_are_strings(str_client: httpx.AsyncClient) -> None:
    for path, asked, place in (
        ("/v1/recommend", {"user_id": 1}, ["body", "user_id"]),
        ("/v1/recommend", {"history": ["item/000", 5]}, ["body", "history", 1]),
        ("/v1/similar", {"item_id": 5}, ["body", "item_id"]),
    ):
        assert places(problem_in(await str_client.post(path, json=asked), 422)) == [place]


async def test_a_user_id_above_the_range_is_a_404_and_the_last_one_within_is_not(
    client: httpx.AsyncClient,
) -> None:
    problem = problem_in(await client.post("/v1/recommend", json={"user_id": 10**9 + 1}), 404)
    assert problem.type == "urn:reco:problem:user_not_found"
    assert (await client.post("/v1/recommend", json={"user_id": 10**9})).status_code == 200


async def test_an_unknown_model_and_an_unknown_item_are_404s_of_their_own(client: httpx.AsyncClient) -> None:
    unknown = problem_in(await client.post("/v1/recommend", json={"user_id": 1, "model": "nope"}), 404)
    assert unknown.type == "urn:reco:problem:model_not_found"
    assert problem_in(await client.post("/v1/similar", json={"item_id": 11}), 404).type.endswith(
        ":item_not_found"
    )
    assert problem_in(await client.get("/v1/nothing"), 404).type.endswith(":not_found")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"user_id": NaN}', 400),
        (b'{"user_id": Infinity}', 400),
        (b'{"user_id": 1, "budget_ms": -Infinity}', 400),
        (b'{"user_id": 1, "budget_ms": 1e999}', 400),
        (b'{"user_id": 1, "user_id": 2}', 400),
        (b'{"user_id": 1, "filter": {"deny": [1], "deny": []}}', 400),
        (b'{"user_id": 1, "\\u0075ser_id": 2}', 400),
        (b'{"user_id": "\xff"}', 400),
        (b'{"user_id": "\\ud800"}', 400),
        (b'{"\\ud800": 1}', 400),
        (b"\xff\xfe{\x00}\x00", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 50_000, 400),
        (b'{"filter":' * 900 + b"1" + b"}" * 900, 422),
        (b'{"user_id": 1}garbage', 400),
        (b"1" * 10_000, 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b'{"user_id": 1, "k": ' + b"9" * 5000 + b"}", 400),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None,
)
@pytest.mark.parametrize("path", PATHS)
async def test_hostile_json_is_a_4xx(client: httpx.AsyncClient, path: str, raw: bytes, status: int) -> None:
    response = await client.post(path, content=raw, headers=JSON)
    assert response.status_code in {400, 422}
    if path == "/v1/recommend" and not raw.isdigit():
        assert response.status_code == status
    problem_in(response, response.status_code)


@pytest.mark.parametrize(
    "raw",
    [
        b"{" + b",".join(b'"k%d":1' % number for number in range(257)) + b"}",
        b'{"filter":{"attributes":{' + b",".join(b'"k%d":1' % number for number in range(80_000)) + b"}}}",
        b"[" + b"{}," * 10_000 + b"{}]",
    ],
    ids=["keys", "nested keys", "objects"],
)
@pytest.mark.parametrize("path", PATHS)
async def test_a_crowd_of_keys_or_objects_is_turned_away_before_each_is_looked_at(
    client: httpx.AsyncClient, path: str, raw: bytes
) -> None:
    assert "more than" in problem_in(await client.post(path, content=raw, headers=JSON), 400).detail


async def test_a_problem_names_a_bounded_number_of_faults(client: httpx.AsyncClient) -> None:
    problem = problem_in(await client.post("/v1/recommend", json=dict.fromkeys(map(str, range(256)), 1)), 422)
    assert len(problem.errors or []) == 32
    answer = await client.post("/v1/recommend", json={"history": [None] * 900})
    assert len(problem_in(answer, 422).errors or []) == 32


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_may_hold_one_mebibyte(client: httpx.AsyncClient, path: str) -> None:
    padded = b'{"x": 1}'.ljust(1 << 20)
    problem_in(await client.post(path, content=padded, headers=JSON), 422)
    problem_in(await client.post(path, content=padded + b" ", headers=JSON), 413)


async def test_a_body_that_does_not_say_its_length_is_cut_off_too(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1 << 16
            yield b" " * (1 << 16)

    problem_in(await client.post("/v1/recommend", content=endless(), headers=JSON), 413)
    assert sent <= (1 << 20) + (2 << 16)


async def test_nothing_of_the_body_is_read_before_the_token_is_known(client: httpx.AsyncClient) -> None:
    pieces_read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_read
        for piece in (b'{"user_id"', b":100}"):
            pieces_read += 1
            yield piece

    response = await client.post(
        "/v1/recommend", content=pieces(), headers={**JSON, "Authorization": "Bearer wrong"}
    )
    assert problem_in(response, 401).type == "urn:reco:problem:wrong_token"
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert pieces_read == 0


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "json", "a/b/c; ="]
)
async def test_another_content_type_is_a_415(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post(
        "/v1/recommend", content=b'{"user_id":100}', headers={"Content-Type": content_type}
    )
    problem_in(response, 415)


async def test_a_charset_beside_the_content_type_is_fine(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert (
        await client.post("/v1/recommend", content=b'{"user_id":100}', headers=headers)
    ).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/v1/models"])
async def test_another_method_is_a_405_that_names_the_right_one(client: httpx.AsyncClient, path: str) -> None:
    response = await client.delete(path)
    problem_in(response, 405)
    assert response.headers["allow"] in {"POST", "GET"}


async def test_no_token_is_a_401_or_what_the_settings_say(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        response = await client.get("/v1/models")
        assert problem_in(response, 401).type == "urn:reco:problem:not_authenticated"
    async with running(settings_for(artifacts, missing_token_status="403")) as (_, client):
        assert problem_in(await client.get("/v1/models"), 403).type == "urn:reco:problem:not_authenticated"


class _Broken:
    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        raise ZeroDivisionError("secret of the inside")


async def test_a_line_that_breaks_is_answered_by_what_is_popular(artifacts: Path) -> None:
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))
    broken = dataclasses.replace(live.models["als"], retriever=_Broken())
    live = dataclasses.replace(live, models={**live.models, "als": broken})
    async with running(settings_for(artifacts), live=live) as (_, client):
        response = await client.post("/v1/recommend", json={"user_id": 7, "model": "als"}, headers=BEARER)
    assert response.status_code == 200
    assert response.json()["degraded"] == ["error"]
    assert response.json()["source"] == "popular"
    assert "secret" not in response.text
