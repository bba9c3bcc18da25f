"""The hot route has two doors, ASGI and a plain call: an answer does not show which one it came by."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from running import AUTHORIZED, BEARER, TOKEN, ask, running, settings_for
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.reco import RecoRoute
from service.app import RecoApp
from service.serving.protocol import BoundedProtocol, ServingState

PATIENCE_S = 20
_VARYING = re.compile(rb"(x-request-id: [0-9a-f]{12}-[0-9a-f]+|server-timing: [^\r]*|dur=[0-9.]+)")

HOSTS = [(b"host", b"service")]
TOKENS = st.sampled_from([[AUTHORIZED], [AUTHORIZED], [AUTHORIZED], [], [AUTHORIZED, AUTHORIZED]])
OTHERS = st.lists(
    st.sampled_from(
        [
            (b"x-request-id", b"mine-1"), (b"x-request-id", b"not tame"), (b"x-reco-budget-ms", b"9000"),
            (b"x-reco-budget-ms", b"0.000001"), (b"x-reco-budget-ms", b"soon"), (b"origin", b"https://shop.example"),
            (b"origin", b"https://other.example"), (b"accept", b"*/*"),
        ]
    ),
    max_size=3,
)  # fmt: skip
GARBAGE = b"no\x01\r\n"
ODD = st.binary(max_size=8).map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw))
MODEL = st.one_of(st.sampled_from([b"als", b"knn", b"ease", b"lists", b"popular", b"default", b"%61ls"]), ODD)
USER = st.one_of(st.sampled_from([b"100", b"109", b"262", b"999999", b"%31%30%30"]), ODD)
QUERIES = st.sampled_from(
    [b"", b"", b"?k=3", b"?k=40", b"?k=0", b"?k=1&k=2", b"?a=b", b"?", b"??", b"?%6b=2"]
)
TARGETS = st.builds(
    lambda model, user, rest, query: b"/reco/" + model + b"/" + user + rest + query,
    MODEL, USER, st.sampled_from([b"", b"", b"", b"", b"/", b"/more"]), QUERIES,
)  # fmt: skip


def shown(raw: bytes) -> bytes:
    """What two answers to one request must agree on."""
    return _VARYING.sub(b"-", raw)


@pytest.fixture(params=["*", "https://shop.example"])
async def app(artifacts: Path, request: pytest.FixtureRequest) -> AsyncIterator[RecoApp]:
    async with running(settings_for(artifacts, cors_origins=request.param)) as (app, _):
        yield app


async def test_the_plain_call_answers_what_asgi_answers(app: RecoApp) -> None:
    statuses = set()

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(TARGETS, TOKENS, OTHERS)
    def check(target: bytes, tokens: list[Any], others: list[Any]) -> None:
        headers = [*HOSTS, *tokens, *others]
        written: list[tuple[int, bytes]] = []
        assert app.answer_now(target, headers, "http", lambda status, rest: written.append((status, rest)))
        ((status, rest),) = written
        path, _, query = target.partition(b"?")
        coroutine = ask(app, path, query=query, headers=headers)
        with pytest.raises(StopIteration) as done:  # nothing here is waited for
            coroutine.send(None)
        reply = done.value.value
        lines = b"".join(b"%b: %b\r\n" % header for header in reply.headers)
        assert (status, shown(rest)) == (reply.status, shown(lines + b"\r\n" + reply.body))
        statuses.add(status)

    check()
    assert {200, 401, 404, 422} <= statuses


async def test_warming_up_counts_and_tells_nothing(artifacts: Path, tmp_path: Path) -> None:
    async with running(settings_for(artifacts, events_dir=tmp_path, response_cache=10)) as (app, client):
        assert isinstance(app.hot, RecoRoute)
        app.hot.warm()
        metrics = (await client.get("/metrics")).text
        for name in ("reco_requests_total{", "reco_source_total{", "reco_stage_duration_seconds_count{"):
            assert name not in metrics
        assert len(app.state.services.cache) == 0
        assert (await client.get("/reco/als/100", headers=BEARER)).status_code == 200
        assert 'reco_requests_total{model="als",status="200"} 1.0' in (await client.get("/metrics")).text


def as_bytes(
    target: bytes, method: bytes, version: bytes, headers: list[Any], connection: bytes, body: bytes
) -> bytes:
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    lines += [b"%b: %b" % header for header in headers if b"not tame" not in header]
    lines += [b"Connection: " + connection] if connection else []
    lines += [b"Content-Length: %d" % len(body)] if body else []
    return b"\r\n".join([*lines, b"", body])


REQUESTS = st.builds(
    as_bytes, TARGETS, st.sampled_from([b"GET"] * 6 + [b"HEAD", b"POST", b"OPTIONS"]),
    st.sampled_from([b"1.1"] * 5 + [b"1.0"]), st.builds(lambda tokens, others: HOSTS + tokens + others, TOKENS, OTHERS),
    st.sampled_from([b""] * 6 + [b"keep-alive", b"close"]), st.sampled_from([b""] * 6 + [b"{}"]),
)  # fmt: skip
STREAMS = st.lists(
    st.one_of(*[REQUESTS] * 4, st.sampled_from([b"GET /health HTTP/1.1\r\nHost: s\r\n\r\n", GARBAGE])),
    min_size=1,
    max_size=5,
)


@contextlib.asynccontextmanager
async def at_a_port(app: ASGIApp) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", interface="asgi3", lifespan="off", log_config=None, log_level="critical",
        server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip
    config.load()
    state = ServingState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for connection in list(state.connections):
            connection.transport.abort()
        server.close()
        await server.wait_closed()


async def said(port: int, stream: bytes) -> bytes:
    """Everything that comes back, after a last request that asks to be the last."""
    last = b"GET /reco/als/100 HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer %b\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(stream + last % TOKEN.encode())
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


async def test_a_connection_is_answered_alike_however_its_requests_are_mixed(
    app: RecoApp, examples: list[list[bytes]]
) -> None:
    direct = 0
    answer_now = app.answer_now

    def counted(*args: Any) -> bool:
        nonlocal direct
        answered = answer_now(*args)
        direct += answered
        return answered

    async def only_asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    app.answer_now = counted  # type: ignore[method-assign, assignment]  # to see that it is taken at all
    async with at_a_port(app) as both, at_a_port(only_asgi) as one:
        for requests in examples:
            for stream in (b"".join(requests), requests[0]):
                direct_too, asgi_only = shown(await said(both, stream)), shown(await said(one, stream))
                if (
                    GARBAGE in stream
                ):  # uvicorn refuses it before it has answered what came with it; we, after
                    assert direct_too.endswith(asgi_only), stream
                else:
                    assert direct_too == asgi_only, stream
    assert direct > 50


@pytest.fixture
def examples() -> list[list[bytes]]:
    """Mixed requests, the same in every run."""
    found: list[list[bytes]] = []

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(STREAMS)
    def draw(requests: list[bytes]) -> None:
        found.append(requests)

    draw()
    return found
