"""The service running: in process through ASGI, or behind real sockets on a free port."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import uvicorn
from starlette.types import ASGIApp, Message

from service.app import RecoApp, create_app
from service.settings import Settings, load_settings

TOKEN = "kq7Zr1vWn3xT9bLs5hYd"
ADMIN_TOKEN = "uE2mXo8cPj4gRt6yFa0i"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 20.0


def settings_for(artifacts: Path, **changes: Any) -> Settings:
    """Settings of a test: two tokens, no .env file, and a budget that a busy machine keeps too."""
    tokens = f"shop:{TOKEN},ops:{ADMIN_TOKEN}:reco|admin"
    changes = {"tokens": tokens, "access_log": False, "budget_ms": 10_000, **changes}
    return load_settings({"artifacts": artifacts, **changes}, env_file=None)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over ASGI."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """Value of a header that comes once or not at all."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, values
        return values[0] if values else None


async def ask(
    app: ASGIApp,
    raw_path: bytes,
    *,
    method: str = "GET",
    query: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> Reply:
    """One request as a server would hand it on, whatever bytes it is made of (httpx tidies URLs up)."""
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path, "query_string": query, "headers": headers if headers is not None else [AUTHORIZED],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "asgi": {"version": "3.0"},
    }  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], list(sent[0]["headers"]), body)


AUTHORIZED = (b"authorization", f"Bearer {TOKEN}".encode())


@contextlib.asynccontextmanager
async def running(settings: Settings, **arguments: Any) -> AsyncIterator[tuple[RecoApp, httpx.AsyncClient]]:
    """The app inside its lifespan, and a client of it."""
    app = create_app(settings, **arguments)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        yield app, client


@contextlib.contextmanager
def listening(app: ASGIApp) -> Iterator[tuple[str, int]]:
    """A real uvicorn server around the app on a free port of the loopback."""
    config = uvicorn.Config(
        app, lifespan="on", log_config=None, ws="none", http="httptools", timeout_keep_alive=5
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            assert server.started, "the server did not start"
            host, port = listener.getsockname()
            yield host, port
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Poll until it holds. Raises TimeoutError."""
    give_up = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError
        time.sleep(0.01)


def exchange(address: tuple[str, int], *pieces: bytes, patience_s: float = PATIENCE_S) -> bytes:
    """Send bytes, piece by piece, and read until the server closes or falls silent after an answer."""
    with socket.create_connection(address, timeout=patience_s) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:  # it hung up before it had read all
                break
        return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer: to the end of its declared length, or to the end of the connection."""
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        if end:
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if lengths and len(body) >= int(lengths[0].split(b":")[1]):
                return received
        try:
            more = connection.recv(65536)
        except OSError:
            return received
        if not more:
            return received
        received += more
