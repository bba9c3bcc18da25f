"""Admission in the real service: whose word on a request's age is believed, and what is said to one that is too old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from factories import write_tiny_bundle
from served import PATIENCE_S, Served, served

AGE_S = 9.0
"""Above 80% of the budget that `served` sets, far enough for any machine."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    write_tiny_bundle(root)
    return root


@pytest.fixture(scope="module")
def behind_a_proxy(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {"RECO_TRUSTED_PROXIES": "127.0.0.0/8"}
    with served(artifacts, tmp_path_factory.mktemp("service"), env=environment) as service:
        yield service


def ask(service: Served, path: str, age_s: float, method: str = "GET") -> httpx.Response:
    headers = {**service.headers, "X-Request-Start": f"t={time.time() - age_s:.3f}", "X-Request-Id": "mine"}
    body = {"user_id": 100} if method == "POST" else None
    return httpx.request(method, service.url + path, headers=headers, json=body, timeout=PATIENCE_S)


def test_one_too_old_is_told_to_come_again_in_its_family_s_envelope(behind_a_proxy: Served) -> None:
    hot = ask(behind_a_proxy, "/reco/als/100", AGE_S)
    assert (hot.status_code, hot.headers["retry-after"], hot.headers["x-request-id"]) == (503, "1", "mine")
    assert hot.json()["errors"][0]["error_key"] == "overloaded"
    other = ask(behind_a_proxy, "/v1/recommend", AGE_S, "POST")
    assert (other.status_code, other.headers["retry-after"]) == (503, "1")
    assert other.headers["content-type"] == "application/problem+json"
    assert (other.json()["type"], other.json()["instance"]) == ("urn:reco:problem:overloaded", "mine")
    through_asgi = ask(behind_a_proxy, "/reco/als/100", AGE_S, "HEAD")
    assert (through_asgi.status_code, through_asgi.content) == (503, b"")
    assert behind_a_proxy.counted("reco_shed_total") == {'{reason="age"}': 3.0}


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_probes_are_answered_at_any_age(behind_a_proxy: Served, path: str) -> None:
    assert ask(behind_a_proxy, path, AGE_S).status_code == 200


@pytest.mark.parametrize("age_s", [0.0, -3600.0, 3600.0])
def test_the_young_pass_and_so_does_a_time_that_no_request_can_have(
    behind_a_proxy: Served, age_s: float
) -> None:
    assert ask(behind_a_proxy, "/reco/als/100", age_s).status_code == 200
    assert ask(behind_a_proxy, "/v1/recommend", age_s, "POST").status_code == 200


def test_what_can_t_be_answered_in_full_any_more_gets_what_is_popular(behind_a_proxy: Served) -> None:
    headers = {
        **behind_a_proxy.headers,
        "X-Request-Start": f"t={time.time() - 5:.3f}",
        "X-Reco-Budget-Ms": "4000",
    }
    answer = httpx.get(behind_a_proxy.url + "/reco/als/100", headers=headers, timeout=PATIENCE_S)
    assert (answer.status_code, answer.headers["x-reco-degraded"]) == (200, "retrieve")
    assert answer.headers["x-reco-source"] != "personal"
    body = {"user_id": 100, "budget_ms": 4000}
    answer = httpx.post(behind_a_proxy.url + "/v1/recommend", headers=headers, json=body, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["degraded"]) == (200, ["retrieve"])


def test_nobody_else_s_word_counts(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path, env={"RECO_TRUSTED_PROXIES": "192.0.2.1"}) as service:
        assert ask(service, "/reco/als/100", AGE_S).status_code == 200
        assert ask(service, "/v1/recommend", AGE_S, "POST").status_code == 200
        assert service.counted("reco_shed_total") == {}
