"""The log of a running app, as somebody who collects its standard output sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import ADMIN_TOKEN, BEARER, TOKEN, running, settings_for

from service.access_log import CAPACITY

TEMPLATE_KEYS = {
    "time", "level", "service_name", "logger", "pid", "method", "requested_url", "status_code", "request_time",
}  # fmt: skip


async def test_every_request_leaves_one_line_and_no_token(
    artifacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(settings_for(artifacts, access_log=True)) as (_, client):
        answer = await client.get("/reco/als/100?k=3", headers={**BEARER, "X-Request-Id": "mine-1"})
        await client.get("/reco/nope/100", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        await client.get("/reco/als/1", headers={"Authorization": "Bearer a-guess-at-a-token"})
        await client.get("/health", headers=BEARER)
    text = capfd.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status_code"] for line in lines] == [200, 404, 401, 200]
    assert all(set(line) >= TEMPLATE_KEYS for line in lines)
    assert lines[0]["requested_url"] == "http://service/reco/als/100?k=3"
    assert lines[0]["request_id"] == "mine-1" == answer.headers["X-Request-Id"]
    assert (lines[0]["model"], lines[0]["source"]) == ("als", answer.headers["X-Reco-Source"])
    assert lines[1]["model"] == "unknown"
    for secret in (TOKEN, ADMIN_TOKEN, "a-guess-at-a-token"):
        assert secret not in text


async def test_the_log_of_requests_can_be_off(artifacts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with running(settings_for(artifacts, access_log=False)) as (_, client):
        await client.get("/reco/als/100", headers=BEARER)
        await client.get("/health")
    assert capfd.readouterr().out == ""


async def test_lost_lines_are_counted(artifacts: Path) -> None:
    async with running(settings_for(artifacts, access_log=True)) as (app, client):
        log = app.state.services.log
        log.stop()
        for _ in range(CAPACITY + 3):
            log.event(0.0, "INFO", "filling the queue")
        answer = await client.get("/reco/als/100", headers=BEARER)
        assert answer.status_code == 200
        text = (await client.get("/metrics")).text
    assert "reco_log_lines_dropped_total 4.0" in text


async def test_a_broken_route_is_logged_with_its_traceback_and_request_id(
    artifacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(settings_for(artifacts)) as (app, client):

        @app.get("/broken")
        async def broken() -> None:
            raise KeyError("the cause")

        response = await client.get("/broken")
    (line,) = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert response.status_code == 500
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert "KeyError: 'the cause'" in line["traceback"]
