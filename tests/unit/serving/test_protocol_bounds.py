"""Bounds of a connection, over real sockets; the clock is the loop's, moved by handing `sweep` a later time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from service.serving.drain import begin_closing, finish_connections
from service.serving.protocol import (
    BODY_S,
    HEAD_S,
    KEEP_ALIVE_S,
    LINGER_S,
    MAX_HEAD_BYTES,
    READING_S,
    BoundedProtocol,
    ServingState,
)

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body, or with `?n` bytes."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if message["type"] == "http.disconnect":
        return
    body = b"x" * int(scope["query_string"]) if scope["query_string"] else str(size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


class Served:
    """A server on a free port, its state, and the one connection a test made."""

    def __init__(self, state: ServingState, connect: Connect) -> None:
        self.state, self.connect = state, connect

    @property
    def connection(self) -> BoundedProtocol:
        (only,) = self.state.connections
        assert isinstance(only, BoundedProtocol)
        return only

    async def arrived(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the condition is the kernel's, nobody can set an event
                await asyncio.sleep(0.001)


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    config = uvicorn.Config(
        echo,
        http=BoundedProtocol,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="error",
    )
    config.load()
    state = ServingState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    writers = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        await Served(state, connect).arrived(lambda: bool(state.connections))
        return reader, writer

    try:
        yield Served(state, connect)
    finally:
        for writer in writers:
            writer.close()
        for connection in list(state.connections):
            connection.transport.abort()
        listening.close()
        await Served(state, connect).arrived(lambda: not state.connections)


def head(path: str = "/", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode()


async def test_a_head_of_the_most_bytes_passes_and_one_more_is_431(server: Served) -> None:
    room = MAX_HEAD_BYTES - len(head("/", "X: "))
    reader, writer = await server.connect()
    writer.write(head("/", "X: " + "y" * room))
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    reader, writer = await server.connect()
    writer.write(head("/", "X: " + "y" * (room + 1)))
    assert (await reader.readline()) == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    assert (await reader.read()).endswith(b"too long")


async def test_an_endless_head_is_cut_and_nothing_of_it_kept(server: Served) -> None:
    _, writer = await server.connect()
    writer.write(b"GET / HTTP/1.1\r\n")
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 64 << 20:
            writer.write(b"X-%d: %b\r\n" % (sent, b"z" * 1000))
            sent += 1000
            await writer.drain()
    assert sent < 16 << 20  # what the kernel's buffers and one chunk hold


async def test_the_bound_is_for_each_request_of_a_connection(server: Served) -> None:
    reader, writer = await server.connect()
    for _ in range(4):
        writer.write(head("/", "X: " + "y" * (MAX_HEAD_BYTES // 2)))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)


async def test_many_pipelined_requests_in_one_chunk_are_all_answered(server: Served) -> None:
    reader, writer = await server.connect()
    count = 2 * MAX_HEAD_BYTES // len(head())
    writer.write(head() * count)
    for _ in range(count):
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)


async def test_a_large_body_in_the_head_s_chunk_is_no_head(server: Served) -> None:
    reader, writer = await server.connect()
    size = 4 * MAX_HEAD_BYTES
    writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(5) == b"65536"


async def test_a_head_that_trickles_in_is_408_in_time(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    await server.arrived(lambda: not server.connection.idle)
    server.connection.sweep(server.connection.since + HEAD_S - 0.1)
    assert not server.connection.transport.is_closing()
    server.connection.sweep(server.connection.since + HEAD_S + 0.1)
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_refused_client_that_goes_on_sending_still_reads_why_and_is_cut_in_the_end(
    server: Served,
) -> None:
    reader, writer = await server.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    connection = server.connection
    await server.arrived(lambda: not connection.idle)
    connection.sweep(connection.since + HEAD_S + 0.1)
    for _ in range(20):
        writer.write(b"x" * 1000)
        await writer.drain()
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    assert server.state.connections
    connection.sweep(connection.since + LINGER_S + 0.1)
    await server.arrived(lambda: not server.state.connections)


async def test_a_connection_that_never_asks_is_closed_in_silence(server: Served) -> None:
    reader, _ = await server.connect()
    server.connection.sweep(server.connection.since + HEAD_S + 0.1)
    assert await reader.read() == b""


async def test_an_idle_connection_that_has_asked_is_left_to_its_keep_alive(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(head())
    await reader.readuntil(b"\r\n\r\n0")
    server.connection.sweep(server.connection.since + HEAD_S + BODY_S + READING_S)
    writer.write(head())
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n0")


async def test_an_idle_connection_is_closed_once_its_keep_alive_has_passed(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(head())
    await reader.readuntil(b"\r\n\r\n0")
    await server.arrived(lambda: server.connection.idle)
    server.connection.sweep(server.connection.since + KEEP_ALIVE_S - 1)
    assert not server.connection.transport.is_closing()
    server.connection.sweep(server.connection.since + KEEP_ALIVE_S + 1)
    assert await reader.read() == b""


async def test_a_body_that_trickles_in_is_cut_in_time(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nab")
    await server.arrived(lambda: server.connection.answering)
    server.connection.sweep(server.connection.since + BODY_S - 0.1)
    assert not server.connection.transport.is_closing()
    server.connection.sweep(server.connection.since + BODY_S + 0.1)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    assert server.state.connections == set()


async def test_a_client_that_stops_reading_is_cut_in_time(server: Served) -> None:
    _, writer = await server.connect()
    writer.write(head(f"/?{64 << 20}"))
    connection = server.connection
    await server.arrived(lambda: connection.flow.write_paused)
    connection.sweep(asyncio.get_running_loop().time() + READING_S - 1)
    assert server.state.connections
    connection.sweep(asyncio.get_running_loop().time() + READING_S + 1)
    await server.arrived(lambda: not server.state.connections)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\nHost: t\n\n\x00",
        b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_is_400_and_closed(server: Served, request_bytes: bytes) -> None:
    reader, writer = await server.connect()
    writer.write(request_bytes)
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in answer


async def test_closing_answers_what_is_under_way_and_says_it_is_the_last(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab")
    await server.arrived(lambda: server.connection.answering)
    begin_closing(server.state)
    ended = asyncio.create_task(finish_connections(server.state, 10))
    writer.write(b"cd")
    assert b"connection: close" in await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b"4"
    assert await ended == 0


async def test_closing_still_answers_an_idle_connection_s_next_request(server: Served) -> None:
    reader, writer = await server.connect()
    writer.write(head())
    await reader.readuntil(b"\r\n\r\n0")
    begin_closing(server.state)
    ended = asyncio.create_task(finish_connections(server.state, 10))
    writer.write(head())
    assert b"connection: close" in await reader.readuntil(b"\r\n\r\n")
    assert await ended == 0


async def test_what_does_not_end_within_the_limit_is_cut_and_counted(server: Served) -> None:
    _, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab")
    await server.arrived(lambda: server.connection.answering)
    begin_closing(server.state)
    assert await finish_connections(server.state, 0.05) == 1
    await server.arrived(lambda: not server.state.connections)
