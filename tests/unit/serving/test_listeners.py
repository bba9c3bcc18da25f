"""Sockets that several workers share."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from service.errors import InputError
from service.serving.listeners import listen, refuse_new_connections, reserve, take_backlog


def close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def test_reserved_sockets_share_one_free_port_and_refuse_until_they_listen() -> None:
    bound = reserve("127.0.0.1", 0, 3)
    address = bound[0].getsockname()
    try:
        assert {one.getsockname() for one in bound} == {address}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        listen(bound)
        clients = [socket.create_connection(address) for _ in range(30)]
        taken = [take_backlog(one) for one in bound]
        assert sum(map(len, taken)) == len(clients)
        assert sum(bool(some) for some in taken) > 1
        close([*clients, *(one for some in taken for one in some)])
    finally:
        close(bound)


def test_a_port_that_somebody_listens_on_cannot_be_reserved_even_by_its_own_kind() -> None:
    first = reserve("127.0.0.1", 0, 1)
    port = first[0].getsockname()[1]
    try:
        second = reserve("127.0.0.1", port, 1)  # nobody listens yet: both may believe it is theirs
        listen(first)
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: the port is in use"):
            listen(second)
        close(second)
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: the port is in use"):
            reserve("127.0.0.1", port, 1)
    finally:
        close(first)


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid", "a" * 70])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(InputError, match=f"cannot listen on '?{host}"):
        reserve(host, 0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="a socket filter is Linux's")
def test_after_refusing_nobody_new_gets_in_and_who_is_in_is_served() -> None:
    (listener,) = reserve("127.0.0.1", 0, 1)
    listen([listener])
    address = listener.getsockname()
    waiting = socket.create_connection(address)
    refuse_new_connections(listener)
    late_outcome = []

    def come_late() -> None:
        try:
            socket.create_connection(address, timeout=20)
        except OSError as error:
            late_outcome.append(type(error))

    late = threading.Thread(target=come_late)
    late.start()
    (connection,) = take_backlog(listener)
    waiting.sendall(b"ask")
    connection.setblocking(True)
    assert connection.recv(3) == b"ask"
    assert take_backlog(listener) == []
    listener.close()
    late.join()
    assert late_outcome == [ConnectionRefusedError]
    connection.sendall(b"told")
    assert waiting.recv(4) == b"told"
    close([waiting, connection])
