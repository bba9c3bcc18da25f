"""A service under load tells clients to come again: the simulated audience and the parity check do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from running import listening

from loadtest.parity import verify
from loadtest.simulator.http import Connection

BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n%b\r\n"
AGAIN = BUSY % b"retry-after: 0\r\n"
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def asked(*answers: bytes) -> tuple[int, int]:
    """The status that a client is left with, and how often it asked."""
    times = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal times
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answers[min(times, len(answers) - 1)])
                times += 1
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(f"http://127.0.0.1:{port}", timeout_s=20)
        status = (await connection.ask("GET", "/")).status
        await connection.close()
        await asyncio.sleep(0.01)  # the server's side closes in the loop's next turns
    return status, times


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ((GOOD,), (200, 1)),
        ((AGAIN, AGAIN, GOOD), (200, 3)),
        ((AGAIN,), (503, 5)),
        ((BUSY % b"", GOOD), (503, 1)),
        ((BUSY % b"retry-after: Sat, 21 Nov 2026 00:00:00 GMT\r\n", GOOD), (503, 1)),
    ],
)
async def test_the_audience_comes_again_when_told_to(
    answers: tuple[bytes, ...], wanted: tuple[int, int]
) -> None:
    assert await asked(*answers) == wanted


def test_parity_is_judged_by_what_was_answered_in_the_end() -> None:
    times = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal times
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        times += 1
        status, headers = (503, [(b"retry-after", b"1")]) if times < 3 else (200, [])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"items": [1, 2]}).encode()})

    with listening(app) as (host, port):
        assert verify(f"http://{host}:{port}", "m", {1: [1, 2]}, k=2).differences == ()
    assert times == 3
