"""Connections passed from one server to another over a real channel, as from a worker to its successor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from service.serving.handover import ADMIN, MAIN, Intake, hand_over, leave_histories
from service.serving.protocol import HEAD_S, BoundedProtocol, ServingState
from service.state.history import ByUser

REQUEST = b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n"


class Side:
    """A server: answers with its name and the path; `gate` holds answers back."""

    def __init__(self, name: str) -> None:
        self.name, self.state = name, ServingState()
        self.gate = asyncio.Event()
        self.gate.set()
        self.config = uvicorn.Config(
            self.answer, http=BoundedProtocol, ws="none", interface="asgi3", lifespan="off", log_config=None,
            log_level="error",
        )  # fmt: skip
        self.config.load()

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.gate.wait()
        body = f"{self.name}{scope['path']}".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def make(self) -> BoundedProtocol:
        return BoundedProtocol(self.config, self.state, {})

    @property
    def connections(self) -> list[BoundedProtocol]:
        return [one for one in self.state.connections if isinstance(one, BoundedProtocol)]


class Pair:
    """Two servers, the channel between them, and clients of the first."""

    def __init__(self) -> None:
        self.old, self.new = Side("old"), Side("new")
        self.taken: list[ByUser] = []
        self.reader, self.writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.reader, self.writer):
            end.setblocking(False)
        self.intake = Intake(self.reader, {MAIN: self.new.make}, self.taken.append)
        self.clients: list[asyncio.StreamWriter] = []
        self.port = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        before = len(self.old.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(writer)
        await until(lambda: len(self.old.connections) > before)
        return reader, writer

    async def hand_over(self, limit_s: float = 10.0) -> int:
        return await hand_over({MAIN: self.old.state}, self.writer, limit_s, lambda: False)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is the kernel's, nobody can set an event
            await asyncio.sleep(0.001)


async def body(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head.lower()
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
        return (await reader.readexactly(length)).decode()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(made.old.make, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.intake.close()
        await made.intake.settled()
        for writer in made.clients:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        listening.close()
        await until(lambda: not made.old.connections and not made.new.connections)
        made.reader.close()
        made.writer.close()


async def test_a_connection_goes_on_with_the_successor(pair: Pair) -> None:
    reader, writer = await pair.connect()
    writer.write(REQUEST % 1)
    assert await body(reader) == "old/1"
    assert await pair.hand_over() == 1
    assert pair.old.connections == []
    writer.write(REQUEST % 2)  # it waits in the kernel until somebody reads
    pair.intake.open()
    assert await body(reader) == "new/2"
    (passed,) = pair.new.connections
    passed.sweep(passed.since + 2 * HEAD_S)
    writer.write(REQUEST % 3)
    assert await body(reader) == "new/3"


async def test_one_that_has_asked_nothing_yet_is_held_to_the_time_for_a_first_head(pair: Pair) -> None:
    reader, _ = await pair.connect()
    pair.intake.open()
    assert await pair.hand_over() == 1
    await until(lambda: pair.new.connections)
    (passed,) = pair.new.connections
    passed.sweep(passed.since + 2 * HEAD_S)
    assert await reader.read() == b""


async def test_an_answer_under_way_is_given_first(pair: Pair) -> None:
    reader, writer = await pair.connect()
    pair.intake.open()
    pair.old.gate.clear()
    writer.write(REQUEST % 1)
    await until(lambda: not pair.old.connections[0].idle)
    passing = asyncio.create_task(pair.hand_over())
    await asyncio.sleep(0)
    assert not passing.done()
    pair.old.gate.set()
    assert await body(reader) == "old/1"
    assert await passing == 1
    writer.write(REQUEST % 2)
    assert await body(reader) == "new/2"


@pytest.mark.parametrize("begun", [b"G", REQUEST[:-2] % 2, REQUEST % 1 + b"GET /2"])
async def test_a_connection_with_a_part_of_a_request_stays(pair: Pair, begun: bytes) -> None:
    reader, writer = await pair.connect()
    pair.intake.open()
    writer.write(begun)
    if begun.startswith(REQUEST % 1):
        assert await body(reader) == "old/1"
    await until(lambda: not pair.old.connections[0].at_rest)
    assert await pair.hand_over(0) == 0
    writer.write((REQUEST % 2)[len(begun) % len(REQUEST % 1) :])
    assert await body(reader) == "old/2"
    assert await pair.hand_over() == 1


async def test_a_full_channel_leaves_a_connection_where_it_is(pair: Pair) -> None:
    reader, writer = await pair.connect()
    writer.write(REQUEST % 1)
    assert await body(reader) == "old/1"
    with contextlib.suppress(BlockingIOError):
        while True:
            pair.writer.send(b"x" * 1000)
    assert await pair.hand_over(0) == 0
    writer.write(REQUEST % 2)
    assert await body(reader) == "old/2"


async def test_what_a_dead_successor_did_not_read_is_the_next_ones(pair: Pair) -> None:
    clients = [await pair.connect() for _ in range(100)]
    assert await pair.hand_over() == 100
    second = Intake(pair.reader, {MAIN: pair.new.make, ADMIN: pair.new.make}, pair.taken.append)
    second.take()  # so many at a time
    second.take()
    await second.settled()
    for number, (reader, writer) in enumerate(clients):
        writer.write(REQUEST % number)
        assert await body(reader) == f"new/{number}"


async def test_histories_arrive_as_they_were_left(pair: Pair) -> None:
    left: dict[int | str, tuple[int | str, ...]] = {user: (user, "a", 1) for user in range(100)}
    left["1"] = ("b",)
    assert await leave_histories(left, pair.writer, 10.0) == 0
    pair.intake.take()
    told: dict[Any, Any] = {}
    for some in pair.taken:
        told |= some
    assert told == left


async def test_histories_that_find_no_room_are_counted(pair: Pair) -> None:
    left: ByUser = dict.fromkeys(range(1000), ("x" * 10_000,))
    unsent = await leave_histories(left, pair.writer, 0.0)
    pair.intake.take()
    assert 0 < unsent == 1000 - sum(map(len, pair.taken))
