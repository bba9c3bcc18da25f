"""Health and metrics over HTTP."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from factories import write_tiny_bundle
from running import BEARER, running, settings_for

from service.api.health import STALLED_AFTER_S
from service.app import create_admin_app, create_app
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import BundleRefused, InputError
from service.recommender.live import go_live


async def test_health_says_that_it_is_alive(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        response = await client.get("/health")
    assert (response.status_code, response.content) == (200, b'"I am alive"')
    assert response.headers["content-type"] == "application/json"


async def test_ready_means_a_live_bundle_and_no_drain(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (app, client):
        serving = app.state.services.serving
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "bundle": serving.live.bundle_id},
        )

        serving.draining = True
        draining = await client.get("/health/ready")
        assert (draining.status_code, draining.json()["reason"]) == (503, "draining")
        assert (await client.get("/health")).status_code == 200
        answer = await client.get("/reco/als/1", headers=BEARER)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")

        serving.draining, serving.live = False, None
        empty = await client.get("/health/ready")
        assert (empty.status_code, empty.json()["reason"]) == (503, "no bundle is live yet")


async def test_live_means_that_the_loop_comes_round(artifacts: Path) -> None:
    now = [1000.0]
    async with running(settings_for(artifacts), clock=lambda: now[0]) as (app, client):
        assert (await client.get("/health/live")).status_code == 200
        async with asyncio.timeout(20):
            while True:  # the heartbeat may come round in between and set it right
                app.state.services.serving.heartbeat_at = now[0] - STALLED_AFTER_S - 1
                stalled = await client.get("/health/live")
                if stalled.status_code == 503:
                    break
        assert stalled.json()["status"] == "stalled"


async def test_a_refused_bundle_ends_the_start_up(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path)
    vectors = bundle / "als" / "item_vectors.npy"
    raw = bytearray(vectors.read_bytes())
    raw[-1] ^= 0x40
    vectors.chmod(0o644)
    vectors.write_bytes(raw)
    app = create_app(settings_for(tmp_path))
    with pytest.raises(BundleRefused, match=r"als/item_vectors\.npy"):
        async with app.router.lifespan_context(app):
            pass


async def test_an_empty_artifacts_folder_ends_the_start_up(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path))
    with pytest.raises(InputError, match="nothing is published"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_bundle_made_live_before_is_served_without_reading(artifacts: Path, tmp_path: Path) -> None:
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))

    def load(path: Path) -> None:
        raise AssertionError(f"read {path}")

    async with running(settings_for(tmp_path), live=live, load=load) as (_, client):
        response = await client.get("/reco/als/1", headers=BEARER)
    assert response.headers["X-Reco-Bundle"] == live.bundle_id


async def test_the_admin_port_takes_metrics_away_from_the_main_one(artifacts: Path) -> None:
    async with running(settings_for(artifacts, admin_port=0)) as (app, client):
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/health/ready")).status_code == 200
        await client.get("/reco/als/1", headers=BEARER)
        transport = httpx.ASGITransport(app=create_admin_app(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
            assert 'reco_requests_total{model="als",status="200"} 1.0' in (await admin.get("/metrics")).text
            assert (await admin.get("/health/ready")).status_code == 200
            assert (await admin.get("/reco/als/1", headers=BEARER)).status_code == 404


async def test_metrics_name_what_is_live(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (app, client):
        response = await client.get("/metrics")
        bundle_id = app.state.services.serving.live.bundle_id
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert re.search(
        rf'^reco_bundle_info\{{bundle_id="{bundle_id}",.*data="tiny".*\}} 1\.0$', response.text, re.M
    )
    assert 'reco_index_recall{k="10",model="als"} 1.0' in response.text


async def test_model_labels_are_bounded_by_the_bundle(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        for number in range(50):
            await client.get(f"/reco/model-{number}/1", headers=BEARER)
            await client.get(f"/path-{number}")
        text = (await client.get("/metrics")).text
    assert set(re.findall(r'model="([^"]+)"', text)) == {"als", "knn", "ease", "lists", "popular", "unknown"}
    assert 'reco_requests_total{model="unknown",status="404"} 50.0' in text
    assert 'reco_http_requests_total{route="unmatched",status="404"} 50.0' in text
