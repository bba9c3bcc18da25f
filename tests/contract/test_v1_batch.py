"""POST /v1/recommend:batch: order, one bundle, one budget, a problem for whom it concerns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import tiny_dataset, write_tiny_bundle
from running import BEARER, running, settings_for

from service.api.v1_schemas import BatchAnswer

PATH = "/v1/recommend:batch"


@pytest.fixture
async def client(artifacts: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(artifacts)) as (_, client):
        client.headers.update(BEARER)
        yield client


async def outcomes(client: httpx.AsyncClient, queries: list[Any], **more: Any) -> BatchAnswer:
    response = await client.post(PATH, json={"queries": queries, **more})
    assert response.status_code == 200, response.text
    answer = BatchAnswer.model_validate_json(response.content, strict=True)
    assert len(answer.results) == len(queries)
    for result in answer.results:
        assert (result.answer is None) != (result.problem is None)
    return answer


async def test_each_query_is_answered_as_if_alone_and_in_order(client: httpx.AsyncClient) -> None:
    queries: list[Any] = [
        {"user_id": 100 + 3 * row, "k": 1 + row % 5, "model": model}
        for row, model in enumerate(["als", "knn", "popular", "lists", "ease"] * 6)
    ]
    queries += [{"history": [10, 12]}, {"user_id": 7}]
    together = await outcomes(client, queries)
    for query, result in zip(queries, together.results, strict=True):
        alone = (await client.post("/v1/recommend", json=query)).json()
        assert result.answer is not None
        assert [item.model_dump(exclude_unset=True) for item in result.answer.items] == alone["items"]
        assert result.answer.source == alone["source"]
        assert result.answer.bundle == together.bundle


async def test_a_bad_query_gets_its_problem_and_the_others_their_answers(client: httpx.AsyncClient) -> None:
    bad: list[Any] = [
        5, None, "x", [], {}, {"user_id": True}, {"user_id": 1, "k": 0}, {"user_id": "a"}, {"user_id": 10**9 + 1},
        {"user_id": 1, "model": "nope"}, {"user_id": 1, "filter": {"attributes": {"x": ["y"]}}},
        {"user_id": 1, "budget_ms": 5},
    ]  # fmt: skip
    statuses = [422] * 8 + [404, 404, 422, 422]
    queries = [one for query in bad for one in (query, {"user_id": 100, "k": 2})]
    answer = await outcomes(client, queries)
    for number, result in enumerate(answer.results):
        if number % 2:
            assert result.answer is not None
            assert len(result.answer.items) == 2
            continue
        assert result.problem is not None
        assert result.problem.status == statuses[number // 2]
        for fault in result.problem.errors or []:
            assert fault.loc[:3] == ["body", "queries", number]


async def test_as_many_queries_as_the_settings_allow(artifacts: Path) -> None:
    async with running(settings_for(artifacts, batch_max=3)) as (_, client):
        client.headers.update(BEARER)
        await outcomes(client, [{"user_id": 100}] * 3)
        for queries in ([], [{"user_id": 100}] * 4):
            response = await client.post(PATH, json={"queries": queries})
            assert response.status_code == 422
            assert response.json()["errors"][0]["loc"] == ["body", "queries"]


async def test_queries_after_the_deadline_degrade_and_are_still_answered(artifacts: Path) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.0001
        return now

    async with running(settings_for(artifacts, budget_ms=5), clock=clock) as (_, client):
        client.headers.update(BEARER)
        answer = await outcomes(client, [{"user_id": 100, "k": 3}] * 60)
    degraded = [bool(result.answer and result.answer.degraded) for result in answer.results]
    assert not degraded[0]
    assert degraded[-1]
    assert degraded == sorted(degraded)  # once the budget is spent it stays spent
    assert all(result.answer is not None and len(result.answer.items) == 3 for result in answer.results)


async def test_its_own_budget_lowers_the_services(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"queries": [{"user_id": 100}] * 2, "budget_ms": 0.000001})
    assert [result["answer"]["degraded"] for result in response.json()["results"]] == [["retrieve"]] * 2
    assert response.headers["x-reco-degraded"] == "retrieve"


async def test_a_bundle_that_goes_live_meanwhile_is_not_mixed_in(artifacts: Path, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, dataset=tiny_dataset(seed=8))
    async with (
        running(settings_for(artifacts)) as (app, client),
        running(settings_for(tmp_path)) as (other, _),
    ):
        client.headers.update(BEARER)
        ours, theirs = app.state.services.serving, other.state.services.serving.live
        before = ours.live
        asked = [asyncio.create_task(outcomes(client, [{"user_id": 100, "k": 5}] * 100)) for _ in range(4)]
        while not all(task.done() for task in asked):
            ours.live = theirs if ours.live is before else before
            await asyncio.sleep(0)
        for task in asked:
            answer = task.result()
            assert {result.answer.bundle for result in answer.results if result.answer} == {answer.bundle}
        assert before.bundle_id != theirs.bundle_id
