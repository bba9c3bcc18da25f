"""A service without the towers' runtime answers everybody, says whom it could not compute, and counts them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from running import BEARER, running, settings_for
from tower_bundles import write_tower_bundle

TOLD = 100 + 3 * 56


async def test_whom_the_tower_should_have_answered_is_disclosed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tower_bundle(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    async with running(settings_for(tmp_path)) as (_, client):
        known = await client.get("/reco/tower/100", headers=BEARER)
        assert (known.status_code, known.headers["X-Reco-Source"]) == (200, "personal")
        assert "X-Reco-Degraded" not in known.headers
        told = await client.get(f"/reco/tower/{TOLD}", headers=BEARER)
        assert (told.status_code, len(told.json()["items"])) == (200, 10)
        assert (told.headers["X-Reco-Degraded"], told.headers["X-Reco-Source"]) == (
            "tower",
            "segment_popular",
        )
        question = {"model": "tower", "user_id": 100, "history": [12, 14]}
        newer = (await client.post("/v1/recommend", json=question, headers=BEARER)).json()
        assert (newer["degraded"], newer["source"]) == (["tower"], "segment_popular")
        text = (await client.get("/metrics")).text
    assert 'reco_degraded_total{model="tower",stage="tower"} 2.0' in text
