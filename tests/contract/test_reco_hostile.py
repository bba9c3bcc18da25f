"""Requests that only a raw socket can send, at a real server."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import BEARER, TOKEN, exchange, listening, read_answer, settings_for

from service.app import create_app

AUTH = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
HOST = b"Host: service\r\n"
Address = tuple[str, int]


@pytest.fixture(scope="module")
def address(artifacts: Path) -> Iterator[Address]:
    with listening(create_app(settings_for(artifacts))) as address:
        yield address


def get(target: bytes, *headers: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"".join(headers) + b"\r\n"


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


def still_serves(address: Address) -> None:
    answer = exchange(address, get(b"/reco/als/1", AUTH))
    assert status_of(answer) == 200
    assert b'"items":[' in answer


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/reco/als/-1", 422), (b"/reco/als/9223372036854775808", 422), (b"/reco/als/" + b"7" * 5000, 422),
        (b"/reco/als/1_0", 422), (b"/reco/als/1.0", 422), (b"/reco/als/+1", 422), (b"/reco/als/%D9%A1", 422),
        (b"/reco/../1", 404), (b"/reco/%2e%2e/1", 404), (b"/reco/%2f/1", 404), (b"/reco/%00/1", 404),
        (b"/reco/als/%ff", 422), (b"/reco/als/1%0d%0aX-Evil:%201", 422), (b"/reco/als/1%0D%0A%0D%0A", 422),
        (b"/reco/als/1?k=0", 422), (b"/reco/als/1?k=-1", 422), (b"/reco/als/1?k=1000000000", 422),
        (b"/reco/als/1?k=%00", 422), (b"/reco/als/1?%ff=%ff", 200), (b"/reco/als/1?" + b"a=b&" * 500, 200),
        (b"http://elsewhere.example/reco/als/1", 200), (b"/reco/als/%31", 200),
    ],
)  # fmt: skip
def test_odd_targets_get_their_status(address: Address, target: bytes, status: int) -> None:
    answer = exchange(address, get(target, AUTH))
    assert status_of(answer) == status
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"x-evil" not in head
    assert b"traceback" not in answer.lower()
    still_serves(address)


@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer \xd1\x82\xd0\xbe\xff\r\n",
        b"Authorization: Bearer \r\n",
        b"Authorization:\r\n",
        b"Authorization: Bearer " + b"x" * 60_000 + b"\r\n",
        AUTH + AUTH,
        b"",
    ],
    ids=["non-ascii", "empty token", "empty header", "long", "twice", "none"],
)
def test_odd_tokens_are_401(address: Address, header: bytes) -> None:
    assert status_of(exchange(address, get(b"/reco/als/1", header))) == 401
    still_serves(address)


def test_a_token_of_1_mb_opens_nothing(address: Address) -> None:
    answer = exchange(address, get(b"/reco/als/1", b"Authorization: Bearer " + b"x" * 1_000_000 + b"\r\n"))
    # The server may hang up on so long a header before it has read it all.
    assert answer == b"" or 400 <= status_of(answer) < 500
    still_serves(address)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /reco/als/1 HTTP/1.1\r\n"
        + HOST
        + AUTH
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /reco/als/1 HTTP/1.1\r\n" + HOST + AUTH + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nboom\r\n",
        b"GET /reco/als/1 HTTP/1.1\r\n" + HOST + AUTH + b"Content-Length: -5\r\n\r\n",
        b"GET /reco/als/1 HTTP/1.1\r\n"
        + HOST
        + AUTH
        + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /reco/als/1\r\n\r\n",
        b"GET /reco/als/1 HTTP/1.1\r\n" + HOST + b"Bad Header\x00: x\r\n\r\n",
        b"GET /reco/als/1\r\nX: y HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=[
        "CL+TE",
        "bad chunk",
        "CL<0",
        "two CL",
        "TLS",
        "no target",
        "no version",
        "nul",
        "CR LF",
        "h2",
        "asterisk",
    ],
)
def test_broken_framing_is_no_server_error_and_takes_nobody_down(
    address: Address, request_bytes: bytes
) -> None:
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
    assert answer == b"" or status_of(answer) < 500
    assert b"traceback" not in answer.lower()
    still_serves(address)


def test_a_smuggled_second_request_needs_its_own_token(address: Address) -> None:
    inner = get(b"/reco/als/2")
    outer = b"GET /reco/als/1 HTTP/1.1\r\n" + HOST + AUTH + b"Content-Length: %d\r\n\r\n" % len(inner) + inner
    rest = b""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(outer + get(b"/reco/als/3", b"Connection: close\r\n"))
        while more := connection.recv(65536):
            rest += more
    assert rest.count(b"HTTP/1.1 200") == 1
    assert b'"user_id":1,' in rest
    assert rest.count(b"HTTP/1.1 401") == 1


def test_a_client_that_leaves_before_its_answer_harms_nobody(address: Address) -> None:
    for _ in range(50):
        connection = socket.create_connection(address, timeout=20)
        # Closing with linger 0 sends a reset: the answer meets a dead connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(get(b"/reco/als/1?k=200", AUTH))
        connection.close()
    still_serves(address)


def test_a_client_that_never_reads_harms_nobody(address: Address) -> None:
    with socket.create_connection(address, timeout=20) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.settimeout(0.5)
        sent = 0
        try:
            for _ in range(2000):
                sent += connection.send(get(b"/reco/als/1?k=40", AUTH))
        except TimeoutError:
            pass  # it stopped reading us, as it should
        assert sent
        still_serves(address)


def test_a_slow_header_harms_nobody(address: Address) -> None:
    with socket.create_connection(address, timeout=20) as slow:
        request = get(b"/reco/als/1", AUTH)
        for at in range(0, len(request), 7):
            slow.sendall(request[at : at + 7])
            if at % 70 == 0:
                still_serves(address)
        assert status_of(read_answer(slow)) == 200


@pytest.mark.parametrize(
    ("method", "status", "has_body"),
    [
        (b"GET", 200, True),
        (b"HEAD", 200, False),
        (b"OPTIONS", 405, True),
        (b"TRACE", 405, True),
        (b"DELETE", 405, True),
    ],
)
def test_methods_over_the_wire(address: Address, method: bytes, status: int, has_body: bool) -> None:
    request = method + b" /reco/als/1 HTTP/1.1\r\n" + HOST + AUTH + b"Connection: close\r\n\r\n"
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status
    assert bool(body) is has_body
    if status == 405:
        assert b"allow: GET, HEAD" in head
        assert b"TRACE /reco" not in body


def test_requests_in_a_row_on_one_connection_get_answers_in_a_row(address: Address) -> None:
    users = range(1, 41)
    last = get(b"/reco/als/99", AUTH, b"Connection: close\r\n")
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(b"".join(get(b"/reco/als/%d" % user, AUTH) for user in users) + last)
        answers = b""
        while more := connection.recv(65536):
            answers += more
    places = [answers.index(b'"user_id":%d,' % user) for user in users]
    assert places == sorted(places)
    assert BEARER["Authorization"].encode() not in answers
