"""Rules over HTTP: on every route, beside experiments, and in the log so that answers can be replayed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from running import BEARER, running, settings_for

from service.commands import replay
from service.errors import InputError

RULES = """
[rules.first]
action = "pin"
items = [88, 86]
most = 2
[rules.comedy]
action = "boost"
attribute = "genres"
values = ["comedy"]
strength = 5.0
"""
EXPERIMENTS = """
[experiments.ranking]
control = "als"
on = ["default"]
treatments.als = { model = "als" }
treatments.knn = { model = "knn" }
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES, "utf-8")
    return path


async def test_every_route_follows_them_and_the_log_proves_it(
    artifacts: Path, tmp_path: Path, rules: Path
) -> None:
    experiments, events = tmp_path / "experiments.toml", tmp_path / "events"
    experiments.write_text(EXPERIMENTS, "utf-8")
    settings = settings_for(
        artifacts, rules=rules, experiments=experiments, events_dir=events, profiles="mts,handbook"
    )
    async with running(settings) as (_, client):
        client.headers.update(BEARER)
        for user in (100, 103, 5):
            hot = await client.get(f"/reco/default/{user}?k=6")
            again = await client.get(f"/reco/default/{user}?k=6")
            one = await client.post("/v1/recommend", json={"user_id": user, "k": 6})
            shown = [item["item_id"] for item in one.json()["items"]]
            assert hot.json() == again.json()
            assert hot.json()["items"] == shown
            assert "x-reco-treatment" in hot.headers
            assert set(shown[:2]) <= {86, 88} or user != 5
            plain = await client.get(f"/reco/ease/{user}?k=6")
            assert "x-reco-treatment" not in plain.headers
            handbook = await client.get(f"/get_recommendation?user_id={user}&top_k=6")
            assert handbook.json()["status"] == "success"
        cold = await client.get("/reco/als/5?k=6")
        assert cold.json()["items"][:2] in ([86, 88], [88, 86])
        # Of the boosted genre as far as there is any: comedies are every fourth row.
        assert all((item - 10) // 2 % 4 == 0 for item in cold.json()["items"][2:])
    parser = argparse.ArgumentParser()
    replay.configure(parser)
    words = ["--last", "100", "--events", str(events), "--artifacts", str(artifacts)]
    assert replay.run(parser.parse_args(words)) == 0


async def test_a_faulty_file_keeps_the_service_from_starting(artifacts: Path, rules: Path) -> None:
    rules.write_text('[rules.a]\naction = "bury"\nattribute = "colour"\nvalues = ["red"]\n')  # noqa: ASYNC240 - as above
    with pytest.raises(InputError, match="colour"):
        async with running(settings_for(artifacts, rules=rules)):
            pass
