"""What /reco says when it can't answer: the template's envelope, in the order of checks the settings give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from running import AUTHORIZED, BEARER, Reply, ask, running, settings_for

from service.app import RecoApp, create_app

WRONG = (b"authorization", b"Bearer nobody-was-given-this-one")


@pytest_asyncio.fixture
async def app(artifacts: Path) -> AsyncIterator[RecoApp]:
    async with running(settings_for(artifacts)) as (app, _):
        yield app


def error_of(reply: Reply) -> dict[str, Any]:
    import orjson

    document = orjson.loads(reply.body)
    assert list(document) == ["errors"]
    (error,) = document["errors"]
    assert list(error) == ["error_key", "error_message", "error_loc"]
    assert reply.header(b"content-type") == b"application/json"
    assert reply.header(b"content-length") == b"%d" % len(reply.body)
    assert reply.header(b"access-control-allow-origin") == b"*"
    assert reply.header(b"x-request-id")
    return dict(error)


@pytest.mark.parametrize("user_id", [10**9 + 1, 10**18 - 1])
async def test_a_user_above_the_largest_id_is_not_found(app: RecoApp, user_id: int) -> None:
    reply = await ask(app, b"/reco/als/%d" % user_id)
    assert reply.status == 404
    assert error_of(reply) == {
        "error_key": "user_not_found",
        "error_message": f"User {user_id} not found",
        "error_loc": None,
    }


async def test_the_largest_id_is_a_user(app: RecoApp) -> None:
    assert (await ask(app, b"/reco/als/1000000000")).status == 200


async def test_the_largest_id_is_a_setting(artifacts: Path) -> None:
    async with running(settings_for(artifacts, max_user_id=500)) as (app, _):
        assert (await ask(app, b"/reco/als/500")).status == 200
        assert (await ask(app, b"/reco/als/501")).status == 404


@pytest.mark.parametrize(
    "model",
    [
        b"nope",
        b"ALS",
        b"als%20",
        b"..",
        b"%2e%2e",
        b"a%2fls",
        b"%2f",
        b"%00",
        b"als%00",
        b"%ff",
        b"",
        b"%0d%0aX:1",
        b"a" * 5000,
    ],
)
async def test_an_unknown_model_is_not_found(app: RecoApp, model: bytes) -> None:
    reply = await ask(app, b"/reco/" + model + b"/1")
    assert reply.status == 404
    error = error_of(reply)
    assert error["error_key"] == "model_not_found"
    assert len(error["error_message"]) < 120
    assert all(b"\n" not in value and b"\r" not in value for _, value in reply.headers)


@pytest.mark.parametrize(
    "user_id",
    [
        b"-1",
        b"9223372036854775808",
        b"9" * 5000,
        b"1_0",
        b"1.0",
        b"+1",
        b"%2B1",
        b"%D9%A1",
        b"%ff",
        b"%0d%0a",
        b"abc",
        b"",
        b"1%20",
    ],
)
async def test_a_malformed_id_is_unprocessable_and_no_alias(app: RecoApp, user_id: bytes) -> None:
    reply = await ask(app, b"/reco/als/" + user_id)
    assert reply.status == 422
    error = error_of(reply)
    assert (error["error_key"], error["error_loc"]) == ("int_parsing", ["path", "user_id"])


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (b"k=0", "greater_than_equal"),
        (b"k=-1", "greater_than_equal"),
        (b"k=1000000000", "less_than_equal"),
        (b"k=x", "int_parsing"),
    ],
)
async def test_a_bad_k_is_unprocessable(app: RecoApp, query: bytes, key: str) -> None:
    reply = await ask(app, b"/reco/als/1", query=query)
    assert reply.status == 422
    assert (error_of(reply)["error_key"], error_of(reply)["error_loc"]) == (key, ["query", "k"])


@pytest.mark.parametrize("values", [[b"soon"], [b"-5"], [b""], [b"5", b"5"]])
async def test_a_bad_budget_is_unprocessable(app: RecoApp, values: list[bytes]) -> None:
    headers = [AUTHORIZED, *((b"x-reco-budget-ms", value) for value in values)]
    reply = await ask(app, b"/reco/als/1", headers=headers)
    assert reply.status == 422
    assert error_of(reply)["error_loc"] == ["header", "x-reco-budget-ms"]


# One request with every fault at once: what is named first is what is checked first.
@pytest.mark.parametrize(
    ("order", "headers", "path", "status", "key"),
    [
        ("token,user,model", [], b"/reco/nope/abc", 401, "http_exception"),
        ("token,user,model", [WRONG], b"/reco/nope/abc", 401, "incorrect_bearer_key"),
        ("token,user,model", [AUTHORIZED], b"/reco/nope/abc", 422, "int_parsing"),
        ("token,user,model", [AUTHORIZED], b"/reco/nope/1000000001", 404, "user_not_found"),
        ("token,user,model", [AUTHORIZED], b"/reco/nope/1", 404, "model_not_found"),
        ("token,model,user", [WRONG], b"/reco/nope/abc", 401, "incorrect_bearer_key"),
        ("token,model,user", [AUTHORIZED], b"/reco/nope/abc", 404, "model_not_found"),
        ("token,model,user", [AUTHORIZED], b"/reco/als/1000000001", 404, "user_not_found"),
    ],
)
async def test_faults_are_named_in_the_order_of_the_settings(
    artifacts: Path, order: str, headers: list[tuple[bytes, bytes]], path: bytes, status: int, key: str
) -> None:
    async with running(settings_for(artifacts, check_order=order)) as (app, _):
        reply = await ask(app, path, query=b"k=0", headers=headers)
    assert (reply.status, error_of(reply)["error_key"]) == (status, key)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "OPTIONS", "BREW"])
async def test_other_methods_are_not_allowed(app: RecoApp, method: str) -> None:
    reply = await ask(app, b"/reco/als/1", method=method)
    assert reply.status == 405
    assert error_of(reply)["error_key"] == "http_exception"
    assert reply.header(b"allow") == b"GET, HEAD"


@pytest.mark.parametrize(
    "path", [b"/reco/", b"/reco/als", b"/reco/als/", b"/reco/als/1/", b"/reco/als/1/2", b"/reco//als/1"]
)
async def test_other_shapes_of_the_path_are_not_found(app: RecoApp, path: bytes) -> None:
    reply = await ask(app, path)
    expected = (422, "int_parsing") if path == b"/reco/als/" else (404, "http_exception")
    assert (reply.status, error_of(reply)["error_key"]) == expected


async def test_routes_that_do_not_exist_answer_in_the_same_envelope(app: RecoApp) -> None:
    assert error_of(await ask(app, b"/nothing/here"))["error_key"] == "http_exception"
    reply = await ask(app, b"/health", method="POST")
    assert (reply.status, error_of(reply)["error_key"]) == (405, "http_exception")


async def test_a_fault_of_ours_is_a_bare_500(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (app, _):

        @app.get("/broken")
        async def broken() -> None:
            raise KeyError("a secret of the inside")

        reply = await ask(app, b"/broken")
    assert reply.status == 500
    assert error_of(reply) == {
        "error_key": "server_error",
        "error_message": "Internal Server Error",
        "error_loc": None,
    }
    assert b"secret" not in reply.body


async def test_before_and_after_its_lifespan_the_app_is_not_ready(artifacts: Path) -> None:
    app = create_app(settings_for(artifacts))

    async def refused() -> bool:
        reply = await ask(app, b"/reco/als/1")
        return (reply.status, b"not_ready" in reply.body, reply.header(b"retry-after")) == (503, True, b"1")

    assert await refused()
    assert (await ask(app, b"/health/ready")).status == 503
    async with app.router.lifespan_context(app):
        assert (await ask(app, b"/reco/als/1")).status == 200
    assert await refused()


async def test_without_a_live_bundle_the_answer_is_not_ready(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (app, client):
        app.state.services.serving.live = None
        response = await client.get("/reco/als/1", headers=BEARER)
        assert (response.status_code, response.json()["errors"][0]["error_key"]) == (503, "not_ready")
        assert response.headers["Retry-After"] == "1"


async def test_a_preflight_is_answered_without_a_token(app: RecoApp) -> None:
    asks = [(b"origin", b"https://shop.example"), (b"access-control-request-method", b"GET")]
    for path in (b"/reco/als/1", b"/health"):
        reply = await ask(app, path, method="OPTIONS", headers=asks)
        assert (reply.status, reply.body) == (200, b"")
        assert reply.header(b"access-control-allow-origin") == b"*"
        assert b"Authorization" in (reply.header(b"access-control-allow-headers") or b"")
        assert reply.header(b"access-control-allow-credentials") is None


async def test_only_listed_origins_may_read_when_there_is_a_list(artifacts: Path) -> None:
    async with running(settings_for(artifacts, cors_origins="https://a.example,https://b.example")) as (
        app,
        _,
    ):
        for path in (b"/reco/als/1", b"/health"):
            for origin, allowed in (
                (b"https://a.example", b"https://a.example"),
                (b"https://evil.example", None),
            ):
                reply = await ask(app, path, headers=[AUTHORIZED, (b"origin", origin)])
                assert reply.header(b"access-control-allow-origin") == allowed
                assert reply.header(b"vary") == b"Origin"
