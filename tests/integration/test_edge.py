"""The shipped nginx configuration in a real nginx: what it refuses, what it passes on, what it says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from factories import write_tiny_bundle
from running import BEARER, exchange, listening, settings_for, wait_until

from loadtest.chaos.edge import CONF, HOW_TO, edge, find_nginx
from service.app import create_app

if find_nginx() is None:
    if os.environ.get("CI") == "true":
        pytest.fail(HOW_TO, pytrace=False)
    pytest.skip(HOW_TO, allow_module_level=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The real service behind the real proxy."""
    root = tmp_path_factory.mktemp("artifacts")
    write_tiny_bundle(root)
    folder = tmp_path_factory.mktemp("edge")
    with listening(create_app(settings_for(root))) as service, edge(folder, service) as address:
        yield address


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: t", *lines, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_requests_of_both_families_pass(address: tuple[str, int]) -> None:
    url = f"http://{address[0]}:{address[1]}"
    answer = httpx.get(f"{url}/reco/als/100", headers=BEARER)
    assert answer.status_code == 200
    assert answer.json()["user_id"] == 100
    assert answer.headers["x-reco-bundle"]
    answer = httpx.post(f"{url}/v1/recommend", json={"user_id": 100}, headers=BEARER)
    assert answer.status_code == 200
    assert httpx.get(f"{url}/health/ready").status_code == 200
    assert httpx.get(f"{url}/metrics").status_code == 404
    assert httpx.get(f"{url}/reco/als/100").status_code == 401


@pytest.mark.parametrize(
    ("request_bytes", "wanted"),
    [
        (get("/reco/als/100", "X: " + "y" * 7000), 401),
        (get("/reco/als/100", "X: " + "y" * 9000), 400),
        (get("/reco/als/100", *[f"X{n}: " + "y" * 6000 for n in range(4)]), 400),
        (get("/" + "y" * 9000), 414),
        (
            b"POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    ],
)
def test_what_is_too_long_or_says_two_things_is_refused(
    address: tuple[str, int], request_bytes: bytes, wanted: int
) -> None:
    assert status(exchange(address, request_bytes)) == wanted


def test_the_slow_are_dropped_in_time() -> None:
    text = CONF.read_text()
    for bound in ("client_header_timeout 5s;", "client_body_timeout 10s;", "send_timeout 10s;"):
        assert bound in text


class Upstream:
    """A service that shows what it was sent, and holds its answers until told."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.answer = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            received = b""
            while more := connection.recv(65536):
                received += more
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    self.heads.append(head)
                    if b"/health" not in head:
                        self.answer.wait(20)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def close(self) -> None:
        self.answer.set()
        self._listener.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    try:
        yield made
    finally:
        made.close()


def test_the_proxy_s_own_time_replaces_the_client_s(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answer.set()
    with edge(tmp_path, upstream.address) as address:
        before = time.time()
        exchange(address, get("/reco/als/1", "X-Request-Start: t=1.0", "x-request-start: t=2.0"))
        (head,) = upstream.heads
    said = [line for line in head.split(b"\r\n") if line.lower().startswith(b"x-request-start:")]
    assert len(said) == 1
    assert before - 1 <= float(said[0].split(b"t=")[1]) <= time.time() + 1


def test_more_than_the_queue_holds_is_told_to_come_again_and_probes_pass(
    upstream: Upstream, tmp_path: Path
) -> None:
    with edge(tmp_path, upstream.address, at_once=4) as address:
        held = [socket.create_connection(address, timeout=20) for _ in range(4)]
        for connection in held:
            connection.sendall(get("/reco/als/1"))
        wait_until(lambda: len(upstream.heads) == 4)
        told = exchange(address, get("/reco/als/1"))
        assert status(told) == 503
        assert b"Retry-After: 1" in told
        assert json.loads(told.partition(b"\r\n\r\n")[2])["errors"][0]["error_key"] == "overloaded"
        told = exchange(address, get("/v1/models"))
        assert status(told) == 503
        assert b"application/problem+json" in told
        assert json.loads(told.partition(b"\r\n\r\n")[2])["type"] == "urn:reco:problem:overloaded"
        assert status(exchange(address, get("/health/ready"))) == 200
        upstream.answer.set()
        for connection in held:
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
        assert status(exchange(address, get("/reco/als/1"))) == 200


def test_a_service_that_is_away_is_a_503(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with edge(tmp_path, nobody.getsockname()) as address:
            told = exchange(address, get("/reco/als/1"))
    assert status(told) == 503
    assert b"Retry-After: 1" in told
