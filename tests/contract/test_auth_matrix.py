"""Who gets in: routes x tokens. Nothing but a live token with the scope is answered with 2xx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import AUTHORIZED, TOKEN, ask, running, settings_for

from service.app import RecoApp, create_app
from service.errors import InputError

OPEN = (b"/health", b"/health/live", b"/health/ready", b"/metrics")


@pytest_asyncio.fixture
async def app(artifacts: Path) -> AsyncIterator[RecoApp]:
    async with running(settings_for(artifacts)) as (app, _):
        yield app


@pytest.mark.parametrize("path", OPEN)
async def test_health_and_metrics_are_open(app: RecoApp, path: bytes) -> None:
    for headers in (
        [],
        [(b"authorization", b"Bearer wrong-wrong-wrong-wrong")],
        [(b"authorization", b"\xff")],
    ):
        assert (await ask(app, path, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("values", "challenge"),
    [
        ([], b"Bearer"),
        ([b""], b"Bearer"),
        ([b"Bearer "], b"Bearer"),
        ([b"Basic dXNlcjpwYXNz"], b"Bearer"),
        ([b"Bearer wrong-wrong-wrong-wrong"], b'Bearer error="invalid_token"'),
        ([b"Bearer \xd0\xbf\xd1\x80\xff\xfe"], b'Bearer error="invalid_token"'),
        ([b"Bearer " + b"x" * 1_000_000], b'Bearer error="invalid_token"'),
        ([AUTHORIZED[1], AUTHORIZED[1]], b'Bearer error="invalid_token"'),
        ([AUTHORIZED[1], b"Bearer wrong-wrong-wrong-wrong"], b'Bearer error="invalid_token"'),
    ],
    ids=["missing", "empty header", "empty token", "basic", "wrong", "non-ascii", "1 MB", "twice", "two"],
)
async def test_without_a_live_token_reco_is_closed(
    app: RecoApp, values: list[bytes], challenge: bytes
) -> None:
    reply = await ask(app, b"/reco/als/1", headers=[(b"authorization", value) for value in values])
    assert reply.status == 401
    assert reply.header(b"www-authenticate") == challenge
    assert b"items" not in reply.body


async def test_a_missing_token_may_be_a_403_and_a_wrong_one_stays_a_401(artifacts: Path) -> None:
    async with running(settings_for(artifacts, missing_token_status=403)) as (app, _):
        assert (await ask(app, b"/reco/als/1", headers=[])).status == 403
        wrong = await ask(app, b"/reco/als/1", headers=[(b"authorization", b"Bearer wrong-wrong-wrong")])
        assert (wrong.status, b"incorrect_bearer_key" in wrong.body) == (401, True)


async def test_a_token_in_the_query_opens_nothing(app: RecoApp) -> None:
    for name in (b"token", b"access_token", b"authorization"):
        reply = await ask(app, b"/reco/als/1", query=name + b"=" + TOKEN.encode(), headers=[])
        assert reply.status == 401


async def test_a_token_without_the_scope_is_forbidden(artifacts: Path) -> None:
    async with running(settings_for(artifacts, tokens=f"ops:{TOKEN}:admin")) as (app, _):
        reply = await ask(app, b"/reco/als/1")
    assert (reply.status, b"not_permitted" in reply.body) == (403, True)


async def test_auth_off_opens_reco(artifacts: Path) -> None:
    async with running(settings_for(artifacts, auth=False, tokens=None)) as (app, _):
        assert (await ask(app, b"/reco/als/1", headers=[])).status == 200


async def test_without_tokens_the_service_does_not_start(artifacts: Path) -> None:
    app = create_app(settings_for(artifacts, tokens=""))
    with pytest.raises(InputError, match="there is no token"):
        async with app.router.lifespan_context(app):
            pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]),
    path=st.sampled_from(
        [b"/reco/als/1", b"/reco/default/1", b"/reco/nope/1", b"/reco/als/x", b"/reco/", b"/%72eco/als/1"]
    ),
    mutant=st.one_of(
        st.binary(max_size=60),
        st.integers(0, len(TOKEN) - 1).map(lambda at: (TOKEN[:at] + TOKEN[at + 1 :]).encode()),
        st.tuples(st.integers(0, len(TOKEN) - 1), st.integers(0, 255)).map(
            lambda pair: TOKEN[: pair[0]].encode() + bytes([pair[1]]) + TOKEN[pair[0] :].encode()
        ),
    ),
)  # fmt: skip
async def test_no_mutant_of_a_token_gets_a_2xx(app: RecoApp, method: str, path: bytes, mutant: bytes) -> None:
    if mutant.strip() == TOKEN.encode():
        return
    reply = await ask(app, path, method=method, headers=[(b"authorization", b"Bearer " + mutant)])
    assert 400 <= reply.status < 500


async def test_tokens_rotate_under_requests_without_a_false_401(artifacts: Path, tmp_path: Path) -> None:
    old, new = "A1b2C3d4E5f6G7h8", "Z9y8X7w6V5u4T3s2"
    file = tmp_path / "tokens"
    file.write_text(f"app:{old}\n")

    def publish(text: str) -> None:
        draft = tmp_path / "draft"
        draft.write_text(text)
        draft.replace(file)

    async def status_of(app: RecoApp, token: str) -> int:
        return (
            await ask(app, b"/reco/als/1", headers=[(b"authorization", f"Bearer {token}".encode())])
        ).status

    async with running(settings_for(artifacts, tokens=None, tokens_file=file)) as (app, _):
        assert (await status_of(app, old), await status_of(app, new)) == (200, 401)
        publish(f"app:{old}\napp:{new}\n")
        async with asyncio.timeout(20):
            while await status_of(app, new) != 200:
                assert await status_of(app, old) == 200
                await asyncio.sleep(0.01)
        publish(f"app:{new}\n")
        async with asyncio.timeout(20):
            while await status_of(app, old) != 401:
                assert await status_of(app, new) == 200
                await asyncio.sleep(0.01)
