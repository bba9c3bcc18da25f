"""A two-stage model over HTTP: who found what is told, in answers, the log and a replay."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from factories import tiny_dataset, trained_models, two_stage_model, write_tiny_bundle
from running import BEARER, running, settings_for

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.commands import replay
from service.domain import Deadline, Plan, Query
from service.events.reading import read_records
from service.recommender.live import go_live
from service.recommender.pipeline import recommend
from service.replay.proof import prove
from service.replay.record import asked_of

SOURCES = {"ease", "als", "knn", "popular"}


@pytest.fixture
def ranked(tmp_path: Path) -> Path:
    data = tiny_dataset()
    models = {**trained_models(data), "ranked": two_stage_model(data)}
    write_tiny_bundle(tmp_path / "artifacts", dataset=data, models=models, default_model="ranked")
    return tmp_path / "artifacts"


async def test_who_found_an_item_is_told_everywhere(
    ranked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = tmp_path / "events"
    async with running(settings_for(ranked, events_dir=events, history="memory")) as (_, client):
        client.headers.update(BEARER)
        answer = (await client.post("/v1/recommend", json={"user_id": 112, "k": 40})).json()
        hot = await client.get("/reco/default/112?k=6")
        batch = await client.post(
            "/v1/recommend:batch", json={"queries": [{"user_id": 112}, {"user_id": 112, "model": "als"}]}
        )
        models = (await client.get("/v1/models")).json()["models"]
        for user, item in ((112, 30), (112, 31), (103, 44)):
            event = {"event_id": f"e{user}-{item}", "type": "view", "user_id": user, "item_id": item}
            await client.post("/v1/events", json={"events": [{**event, "timestamp_ms": 1}]})
            assert (await client.get(f"/reco/ranked/{user}?k=6")).status_code == 200
        late = await client.post("/v1/recommend", json={"user_id": 112, "budget_ms": 1e-6})
        await client.post("/v1/recommend", json={"history": [12, 16], "model": "ranked"})
    assert answer["model"] == "ranked"
    assert list(answer["timings_ms"]) == ["retrieve", "rank", "complete"]
    found = [set(item["found_by"]) for item in answer["items"]]
    personal = [names for names, item in zip(found, answer["items"], strict=True) if names]
    assert personal
    assert all(names <= SOURCES for names in personal)
    assert all(item["source"] == "personal" for item in answer["items"][: len(personal)])
    assert hot.json()["items"] == [item["item_id"] for item in answer["items"][:6]]
    assert "rank;dur=" in hot.headers["server-timing"]
    of_ranked, of_als = (result["answer"] for result in batch.json()["results"])
    assert all(set(item["found_by"]) <= SOURCES for item in of_ranked["items"])
    assert all("found_by" not in item for item in of_als["items"])
    assert {model["name"]: model["kind"] for model in models}["ranked"] == "two_stage"
    assert (late.json()["degraded"], late.json()["source"]) == (["retrieve"], "segment_popular")
    records = list(read_records(events))
    logged = next(record for record in records if record["event_id"] == answer["request_id"])
    assert logged["found_by"] == [item["found_by"] for item in answer["items"]]

    parser = argparse.ArgumentParser()
    replay.configure(parser)
    code = replay.run(
        parser.parse_args(["--last", "100", "--events", str(events), "--artifacts", str(ranked)])
    )
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    shown = sum("items" in record for record in records)
    assert (code, said["answers"], said["equal"]) == (0, shown, shown)


@pytest.mark.parametrize("left_out", [("rank",), ("retrieve:ease",), ("rank", "retrieve:als"), ("overrun",)])
def test_a_slate_that_a_stage_was_left_out_of_is_replayed_without_it(
    ranked: Path, left_out: tuple[str, ...]
) -> None:
    live = go_live(load_bundle(ArtifactStore(ranked).current()))
    plan = Plan("ranked", left_out=tuple(stage for stage in left_out if stage != "overrun"))
    slate = recommend(Query(112, 8), plan, live, Deadline.none())
    record = {
        "event_id": "r", "user_id": 112, "timestamp_ms": 1, "bundle": live.bundle_id, "degraded": list(left_out),
        "items": slate.item_ids, "scores": slate.scores, "source": slate.source, "propensities": None,
        "asked": {
            "k": 8, "history": None, "exclude_seen": True, "filter": None, "plan": {"model": "ranked"},
            "retriever": "auto", "recent": 0, "recent_digest": None,
        },
    }  # fmt: skip
    asked = asked_of(record)
    assert asked.plan.left_out == tuple(sorted(plan.left_out))
    assert prove(asked, (), live).differences == ()
