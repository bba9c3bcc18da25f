"""A keep-alive HTTP/1.1 connection that costs little: an audience asks thousands of times a second."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import httptools

from loadtest.simulator.errors import SimulatorError

_READ = 65536
_TRIES = 5
_COME_AGAIN = 503


class HttpFailure(Exception):
    """No answer came: the connection could not be made, broke, or fell silent."""


class Answer:
    """Status, headers (lower-case names) and body; also what the parser tells while it reads them."""

    __slots__ = ("body", "complete", "headers", "keep", "parser", "status")

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpResponseParser(self)
        self.headers: dict[bytes, bytes] = {}
        self.status, self.body, self.complete, self.keep = 0, b"", False, True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Take the status."""
        self.status, self.keep = self.parser.get_status_code(), self.parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self.body += piece

    def on_message_complete(self) -> None:
        """Note the end."""
        self.complete = True


class Connection:
    """One connection, opened when it is first needed, and again after the server has closed it."""

    def __init__(self, url: str, *, timeout_s: float, headers: dict[str, str] | None = None) -> None:
        """Raises SimulatorError for an address that is none."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
            raise SimulatorError(f"--url {url}: not of the form http://host:port")
        self._host, self._port = parts.hostname, port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix, self._timeout_s = parts.path.rstrip("/"), timeout_s
        lines = {"Host": parts.netloc.rpartition("@")[2], **(headers or {})}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Send a request and read its answer. Raises HttpFailure.

        Whoever is told to come again (503 with Retry-After: nothing of the request was done) comes again, a few times.
        """
        for _ in range(_TRIES):
            answer = await self._ask(method, path, body)
            later = answer.headers.get(b"retry-after", b"")
            if answer.status != _COME_AGAIN or not later.isdigit():
                break
            await asyncio.sleep(min(int(later), self._timeout_s))
        return answer

    async def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        """Ask once.

        A connection that was open before may have been closed meanwhile: then nothing of the request was answered,
        and it is sent once more on a new one.
        """
        request = self._request(method, path, body)
        reused = self._streams is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._exchange(request)
                except (ConnectionError, EOFError):
                    await self.close()
                    if not reused:
                        raise
                    return await self._exchange(request)
        except TimeoutError:
            await self.close()
            raise HttpFailure(f"silent for {self._timeout_s:g} s") from None
        except (OSError, EOFError, httptools.HttpParserError) as error:
            await self.close()
            raise HttpFailure(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Hang up."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            try:
                await streams[1].wait_closed()
            except OSError:
                return

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        kind = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._head}{kind}\r\n".encode() + (body or b"")

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        reader, writer = self._streams
        writer.write(request)
        answer = Answer()
        while not answer.complete:
            piece = await reader.read(_READ)
            if not piece:
                raise EOFError("the connection ended within an answer" if answer.status else "no answer")
            answer.parser.feed_data(piece)
        if not answer.keep:
            await self.close()
        return answer
