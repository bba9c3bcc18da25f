"""A real redis-server of a test's own, behind a unix socket, and a proxy before it that misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import redis

HOW_TO_GET_IT = "apt-get install redis-server"
PATIENCE_S = 20.0


class RedisServer:
    """Started, killed and stopped at will. Keeps nothing on disk: killed is forgotten."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.socket = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Run; returns once it answers."""
        self.socket.unlink(missing_ok=True)
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [self._program, *options, "--dir", str(self._folder)], stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < until, "redis-server does not answer"
            with contextlib.suppress(redis.ConnectionError), self.client() as client:
                client.ping()
                return
            time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A client that is none of ours."""
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=PATIENCE_S)

    def run(self, *command: str | bytes | int) -> Any:
        """One command."""
        with self.client() as client:
            return client.execute_command(*command)

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def redis_server(component: Callable[[str, str], str], *, started: bool = True) -> Iterator[RedisServer]:
    """A server in a folder of its own; a unix socket's path has to be short."""
    program = component("redis-server", HOW_TO_GET_IT)
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(program, Path(folder))
        if started:
            server.start()
        try:
            yield server
        finally:
            server.kill()


class Proxy:
    """Between a link and its server, on a port of the loopback. What it is told holds for what comes next."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.delay_s = 0.0
        """Every answer waits so long."""
        self.garbage: bytes | None = None
        """Answered instead of what the server says."""
        self.refusing = False
        """Connections are closed as they come."""
        self.commands = 0
        """Reads from the client so far."""
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection there is."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._tasks.add(serving)
        if self.refusing:
            writer.transport.abort()
            return
        try:
            upstream = await asyncio.open_unix_connection(self._server.socket)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream[1]}
        asking = asyncio.create_task(self._ask(reader, upstream[1]))
        answering = asyncio.create_task(self._answer(upstream[0], writer))
        try:
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= {writer, upstream[1]}
            writer.transport.abort()
            upstream[1].transport.abort()
            for task in (asking, answering):
                task.cancel()

    async def _ask(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.commands += 1
                upstream.write(data)

    async def _answer(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await upstream.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data if self.garbage is None else self.garbage)


@contextlib.asynccontextmanager
async def proxied(server: RedisServer) -> AsyncIterator[Proxy]:
    """A proxy while the block runs."""
    proxy = Proxy(server)
    listener = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        proxy.cut()
        for task in proxy._tasks:
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
