"""Listening sockets: one a worker on the same port, opened by the parent so that none is lost with its worker."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from typing import Any

from service.errors import InputError

Address = tuple[Any, ...]
BACKLOG = 2048
_SO_ATTACH_FILTER = 26
_ACCEPT_ALL, _DROP = 0xFFFFFFFF, 0
# Classic BPF over the TCP header: load the byte of flags; a segment with SYN set is dropped, any other passes.
_DROP_SYN = (
    (0x30, 0, 0, 13),
    (0x45, 0, 1, 0x02),
    (0x06, 0, 0, _DROP),
    (0x06, 0, 0, _ACCEPT_ALL),
)


def reserve(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind `count` sockets to one address, over which the kernel will spread connections once they listen.

    Port 0 takes a free one. Raises InputError when the address is taken, unknown, or not ours to use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InputError(f"cannot listen on {host!r}: {error}") from None
    bound: list[socket.socket] = []
    try:
        for _ in range(count):
            address = _refuse_if_taken(family, address)
            one = _bound(family, address)
            bound.append(one)
    except OSError as error:
        for one in bound:
            one.close()
        raise _unusable(host, port, error) from None
    return bound


def listen(bound: list[socket.socket]) -> None:
    """Begin to take connections; until now they were refused. Raises InputError if somebody else was faster."""
    try:
        _refuse_if_taken(bound[0].family, bound[0].getsockname())
        for listener in bound:
            listener.listen(BACKLOG)
    except OSError as error:
        host, port = bound[0].getsockname()[:2]
        raise _unusable(host, port, error) from None


def bind_again(family: int, address: Address) -> socket.socket:
    """Bind one more socket beside siblings. It gets no connections until its worker listens. Raises OSError."""
    return _bound(family, address)


def _refuse_if_taken(family: int, address: Address) -> Address:
    """Raise OSError if anybody listens there; else the address with its port chosen.

    SO_REUSEPORT lets a second service of the same user join in silently, so a socket without it asks first.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return (address[0], probe.getsockname()[1], *address[2:])


def _bound(family: int, address: Address) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def _unusable(host: str, port: int, error: OSError) -> InputError:
    reason = "the port is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
    return InputError(f"cannot listen on {host}:{port}: {reason}")


def refuse_new_connections(listener: socket.socket) -> None:
    """Let no new handshake begin on a listening socket, while those under way still complete and can be accepted.

    So closing it afterwards resets nobody: who comes now is told nothing, tries again, and finds the port closed.
    Linux only; elsewhere (or where the kernel forbids it) the gap between the last accept and the close stays.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def take_backlog(listener: socket.socket) -> list[socket.socket]:
    """Accept every connection that waits in the kernel."""
    taken: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return taken
        except OSError:  # no descriptors left: what waits is lost with the socket
            return taken
        connection.setblocking(False)
        taken.append(connection)
