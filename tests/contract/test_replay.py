"""Whatever was served can be made again from the log alone, and is equal; what can't be is refused with the reason."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from running import BEARER, running, settings_for

from service.commands import replay
from service.domain import Clock
from service.errors import InputError
from service.events.frames import frame
from service.events.reading import read_records

EXPERIMENTS = """
[experiments.curious]
control = "greedy"
on = ["default"]
[experiments.curious.treatments.greedy]
n_candidates = 15
exploration = { kind = "epsilon", epsilon = 0.5 }
[experiments.curious.treatments.soft]
n_candidates = 15
exploration = { kind = "softmax", temperature = 1.0 }
[experiments.varied]
layer = "order"
control = "mixed"
on = ["knn"]
[experiments.varied.treatments.mixed]
n_candidates = 20
rerank = { method = "mmr", relevance = 0.3 }
[experiments.varied.treatments.apart]
n_candidates = 20
rerank = { method = "dpp", relevance = 0.5, cap = { attribute = "kind", most = 3 } }
"""

Outcome = tuple[int, dict[str, Any]]
Reco = Callable[..., Outcome]


@pytest.fixture
def reco(capsys: pytest.CaptureFixture[str]) -> Reco:
    def run(*words: object) -> Outcome:
        parser = argparse.ArgumentParser()
        replay.configure(parser)
        code = replay.run(parser.parse_args([str(word) for word in words]))
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "events"


def settings_of(artifacts: Path, folder: Path, **changes: Any) -> Any:
    return settings_for(artifacts, events_dir=folder, history="memory", **changes)


async def report(client: httpx.AsyncClient, user: int, *items: int, name: str = "e") -> None:
    events = [
        {
            "event_id": f"{name}{user}-{item}",
            "type": "view",
            "user_id": user,
            "item_id": item,
            "timestamp_ms": 1,
        }
        for item in items
    ]
    assert (await client.post("/v1/events", json={"events": events})).status_code == 200


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    file = tmp_path / "experiments.toml"
    file.write_text(EXPERIMENTS, "utf-8")
    return file


async def serve_everything(artifacts: Path, folder: Path, experiments: Path) -> int:
    """Ask in every way there is; how many slates came."""
    settings = settings_of(artifacts, folder, experiments=experiments, profiles="mts,handbook")
    count = 0
    async with running(settings) as (_, client):
        client.headers.update(BEARER)
        for n, user in enumerate((100, 103, 106, 109, 5, 277)):
            for model in ("default", "als", "knn", "ease", "lists", "popular"):
                assert (await client.get(f"/reco/{model}/{user}?k=6")).status_code == 200
                count += 1
            await report(client, user, *range(10, 20 + 2 * n, 2))
            for body in (
                {"user_id": user, "k": 4},
                {"user_id": user, "exclude_seen": False, "filter": {"attributes": {"genres": ["comedy"]}}},
                {"history": [10, 14, 12], "model": "knn"},
                {"user_id": user, "filter": {"deny": [10, 12, 30], "allow": list(range(10, 60, 2))}},
            ):
                assert (await client.post("/v1/recommend", json=body)).status_code == 200
                count += 1
            batch = {"queries": [{"user_id": user, "k": 3}, {"user_id": 103, "k": 3, "model": "ease"}]}
            assert (await client.post("/v1/recommend:batch", json=batch)).status_code == 200
            asked = {"user_id": 100 + 3 * n, "item_whitelist": [10, 12, 14, 16]}
            for path in ("/api/v1/recommend_for_user", "/recommend_bruteforce"):
                assert (await client.post(path, json=asked)).status_code == 200
            assert (await client.get(f"/get_recommendation?user_id={user}&top_k=7")).status_code == 200
            assert (await client.get(f"/index?id={user}")).status_code == 200
            await report(client, user, 10, 50, name="again")
            count += 6
    return count


async def test_every_way_of_answering_is_proved_from_the_log(
    artifacts: Path, folder: Path, experiments: Path, reco: Reco
) -> None:
    count = await serve_everything(artifacts, folder, experiments)
    code, said = reco("--last", 10_000, "--events", folder, "--artifacts", artifacts)
    assert (said["answers"], said["equal"], said["different"], said["refused"]) == (count, count, 0, [])
    assert code == 0


async def test_profiles_log_what_they_show(artifacts: Path, folder: Path) -> None:
    async with running(settings_of(artifacts, folder, profiles="mts,handbook")) as (_, client):
        client.headers.update(BEARER)
        body = {"user_id": 100, "item_whitelist": [10, 12, 14]}
        answers = [
            await client.post("/api/v1/recommend_for_user", json=body),
            await client.post("/api/v1/recommend_bruteforce", json=body),
            await client.get("/get_recommendation?user_id=100&top_k=5"),
            await client.get("/index?id=100"),
        ]
    shown = [
        answers[0].json()["item_ids"],
        answers[1].json()["item_ids"],
        answers[2].json()["recommendations"],
        [int(item) for item in answers[3].json()],
    ]
    records = {record["event_id"]: record for record in read_records(folder)}
    logged = [records[answer.headers["x-request-id"]] for answer in answers]
    assert [record["items"] for record in logged] == shown
    assert {(record["user_id"], record["model"], record["type"]) for record in logged} == {
        (100, "als", "impression")
    }
    assert logged[1]["asked"]["retriever"] == "exact"
    assert logged[0]["asked"]["filter"]["allow"] == [10, 12, 14]


async def test_a_profile_that_refuses_logs_nothing(artifacts: Path, folder: Path) -> None:
    async with running(settings_of(artifacts, folder, profiles="mts,handbook")) as (_, client):
        client.headers.update(BEARER)
        assert (await client.get("/get_recommendation?user_id=x")).json()["status"] == "error"
        unknown = {"user_id": 7, "item_whitelist": []}
        assert (await client.post("/api/v1/recommend_for_user", json=unknown)).status_code == 404
    assert list(read_records(folder)) == []


async def test_a_live_history_is_found_again_in_the_log(artifacts: Path, folder: Path, reco: Reco) -> None:
    async with running(settings_of(artifacts, folder)) as (_, client):
        client.headers.update(BEARER)
        await report(client, 100, 30, 32, 34)
        before = await client.get("/reco/als/100", headers={"X-Request-Id": "between"})
        await report(client, 100, 36, 38)
        after = await client.get("/reco/als/100", headers={"X-Request-Id": "afterwards"})
    assert before.json() != after.json()
    code, said = reco("between", "afterwards", "--events", folder, "--artifacts", artifacts)
    assert code == 0
    assert [proof["again"] for proof in said["proofs"]] == [before.json()["items"], after.json()["items"]]


async def test_a_history_that_the_log_has_not_is_refused(artifacts: Path, folder: Path, reco: Reco) -> None:
    async with running(settings_of(artifacts, folder)) as (_, client):
        client.headers.update(BEARER)
        await report(client, 100, 30, 32)
        await client.get("/reco/als/100", headers={"X-Request-Id": "mine"})
    keep_only(folder, lambda record: "items" in record)
    code, said = reco("mine", "--events", folder, "--artifacts", artifacts)
    assert code == 2
    assert "2 recent items, which the event log does not have" in said["refused"][0]


def keep_only(folder: Path, kept: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a log with some of its records."""
    records = [record for record in read_records(folder) if kept(record)]
    segments = sorted(folder.glob("worker-*/*.log"))
    for path in segments[1:]:
        path.unlink()
    segments[0].write_bytes(b"".join(frame(orjson.dumps(record)) for record in records))


def swap_first_and_last(folder: Path) -> None:
    (record,) = read_records(folder)
    items = record["items"]
    items[0], items[-1] = items[-1], items[0]
    next(folder.glob("worker-*/*.log")).write_bytes(frame(orjson.dumps(record)))


async def test_a_slate_that_was_tampered_with_comes_out_different(
    artifacts: Path, folder: Path, reco: Reco
) -> None:
    async with running(settings_of(artifacts, folder)) as (_, client):
        client.headers.update(BEARER)
        await client.get("/reco/als/100?k=5", headers={"X-Request-Id": "mine"})
    swap_first_and_last(folder)
    code, said = reco("mine", "--events", folder, "--artifacts", artifacts)
    assert (code, said["different"]) == (1, 1)
    assert said["proofs"][0]["differences"][0].startswith("place 1: it held")


async def test_answers_without_time_for_a_stage_are_made_again_without_it(
    artifacts: Path, folder: Path, experiments: Path, reco: Reco
) -> None:
    late = Late()
    settings = settings_of(artifacts, folder, experiments=experiments, budget_ms=50)
    async with running(settings, clock=late.clock) as (_, client):
        client.headers.update(BEARER)
        late.step = 0.011  # some stages fit, some do not
        for n in range(12):
            await client.get(f"/reco/{('als', 'knn', 'default')[n % 3]}/103?k=5")
    degraded = {stage for record in read_records(folder) for stage in record["degraded"]}
    assert degraded & {"retrieve", "rerank"}
    code, said = reco("--last", 12, "--events", folder, "--artifacts", artifacts)
    assert (code, said["equal"], said["refused"]) == (0, 12, [])


class Late:
    """A clock that takes a step whenever it is read."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 0.0

    @property
    def clock(self) -> Clock:
        def read() -> float:
            self.now += self.step
            return self.now

        return read


async def test_another_bundle_by_the_same_name_is_no_stand_in(
    tmp_path: Path, folder: Path, reco: Reco
) -> None:
    artifacts = tmp_path / "artifacts"
    served = write_tiny_bundle(artifacts)
    async with running(settings_of(artifacts, folder)) as (_, client):
        client.headers.update(BEARER)
        await client.get("/reco/als/100", headers={"X-Request-Id": "mine"})
    data = tiny_dataset(seed=8)
    write_tiny_bundle(artifacts, dataset=data, models=trained_models(data))
    assert reco("mine", "--events", folder, "--artifacts", artifacts)[0] == 0  # it is still there
    shutil.rmtree(served)
    code, said = reco("mine", "--events", folder, "--artifacts", artifacts)
    assert code == 2
    assert served.name in said["refused"][0]


async def test_a_request_that_was_never_logged(artifacts: Path, folder: Path, reco: Reco) -> None:
    async with running(settings_of(artifacts, folder)) as (_, client):
        client.headers.update(BEARER)
        await client.get("/reco/als/100")
    with pytest.raises(InputError, match="no answer 'nobody'"):
        reco("nobody", "--events", folder, "--artifacts", artifacts)
    with pytest.raises(InputError, match="--last"):
        reco("--events", folder, "--artifacts", artifacts)
