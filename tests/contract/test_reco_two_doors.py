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

from service.api.head import Head
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
        said = Head(headers)
        assert app.answer_now(target, said, "http", lambda status, rest: written.append((status, rest)))
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


class Parsing(BoundedProtocol):
    """Counts the requests that were parsed."""

    parsed = 0

    def on_message_begin(self) -> None:
        Parsing.parsed += 1
        super().on_message_begin()


@contextlib.asynccontextmanager
async def at_a_port(app: ASGIApp, state: ServingState | None = None) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", interface="asgi3", lifespan="off", log_config=None, log_level="critical",
        server_header=False, date_header=False, proxy_headers=False,
    )  # fmt: skip
    config.load()
    state = state or ServingState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Parsing(config, state, {}), "127.0.0.1", 0
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


FEW_HEADS = st.sampled_from(
    [
        *[[*HOSTS, AUTHORIZED]] * 16,
        [*HOSTS, (b"authorization", b"Bearer no-token-of-ours")],
        [AUTHORIZED, (b"origin", b"https://shop.example")],
        [AUTHORIZED, (b"x-request-id", b"mine-1")],
        [AUTHORIZED, (b"x-reco-budget-ms", b"9000")],
        [AUTHORIZED, (b"expect", b"100-continue")],
        [AUTHORIZED, (b"connection", b"close")],
        [AUTHORIZED, (b"content-length", b"0")],
    ]
)
ODD_LINES = st.sampled_from(
    [
        b"HEAD /reco/als/100 HTTP/1.1", b"POST /reco/als/100 HTTP/1.1", b"GET /reco/als/100 HTTP/1.0",
        b"GET /reco/als/100  HTTP/1.1", b"GET  /reco/als/100 HTTP/1.1", b"GET /reco/als/1 00 HTTP/1.1",
        b"GET /reco/als/100#1 HTTP/1.1", b"GET /reco/als/1\x0100 HTTP/1.1", b"GET /reco/als/1\xc3\xa4 HTTP/1.1",
        b"GET /reco/als/100 HTTP/1.1\r", b"GET /reco/als/100 HTTP/1.11", b"GET /reco/als/100",
        b"get /reco/als/100 HTTP/1.1",
        b"GET /reco/als/100 HTTP/1.1\nx: y", b"\r\nGET /reco/als/100 HTTP/1.1", b"GET /health HTTP/1.1",
    ]
)  # fmt: skip
LINES = st.one_of(*[TARGETS.map(lambda target: b"GET " + target + b" HTTP/1.1")] * 6, ODD_LINES)


async def answered_in_turn(port: int, requests: list[bytes]) -> list[bytes]:
    """What comes back to requests over one connection, each sent once the one before was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            for request in requests:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if b" 100 Continue" in head:
                    head += await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None, head
                answers.append(
                    head + await reader.readexactly(0 if request[:4] == b"HEAD" else int(length[1]))
                )
    except (ConnectionError, asyncio.IncompleteReadError):
        answers.append(b"closed")
    finally:
        await closed(writer)
    return answers


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_head_that_comes_again_is_answered_as_if_it_were_parsed_again(app: RecoApp) -> None:
    asked: list[list[bytes]] = []

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.tuples(LINES, FEW_HEADS), min_size=2, max_size=12))
    def draw(requests: list[tuple[bytes, list[Any]]]) -> None:
        lines = [b"".join(b"%b: %b\r\n" % header for header in head) for _, head in requests]
        asked.append(
            [b"%b\r\n%b\r\n" % (line, head) for (line, _), head in zip(requests, lines, strict=True)]
        )

    # what hypothesis draws depends on the modules that are loaded: some repeats are given
    asked.extend(
        [plain(b"/reco/%b/100" % model)] * 8 for model in (b"als", b"knn", b"ease", b"lists", b"popular")
    )
    given_repeats = 5 * 7

    draw()

    async def only_asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    unparsed = 0
    async with at_a_port(app) as both, at_a_port(only_asgi) as one:
        for requests in asked:
            expected = await answered_in_turn(one, requests)
            before = Parsing.parsed
            answers = await answered_in_turn(both, requests)
            unparsed += sum(answer != b"closed" for answer in answers) - (Parsing.parsed - before)
            assert [shown(answer) for answer in answers] == [shown(answer) for answer in expected], requests
    assert unparsed > given_repeats, unparsed


def plain(target: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer %b\r\n\r\n" % (target, TOKEN.encode())


async def test_a_head_that_comes_again_may_have_lost_its_token_meanwhile(app: RecoApp) -> None:
    async with at_a_port(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        before = Parsing.parsed
        for status in (b"200", b"200", b"401", b"200"):
            gate = app.state.services.gate
            known = gate.callers
            gate.callers = {} if status == b"401" else known
            writer.write(plain(b"/reco/als/100"))
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
            gate.callers = known
            assert head.startswith(b"HTTP/1.1 " + status)
        assert Parsing.parsed == before + 1
        await closed(writer)


async def test_a_head_that_comes_again_while_the_worker_closes_gets_the_connection_s_last_answer(
    app: RecoApp,
) -> None:
    state = ServingState()
    async with at_a_port(app, state) as port:
        assert len(await answered_in_turn(port, [plain(b"/reco/als/100")] * 3)) == 3
        state.closing = True
        *answers, last = await answered_in_turn(port, [plain(b"/reco/als/100")] * 2)
        assert [b"connection: close" in answer for answer in answers] == [True]
        assert last == b"closed"
