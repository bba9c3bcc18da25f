"""Passing open connections on: a worker that makes way for its successor sends it those on which nothing is under way.

The client notices nothing: its connection goes on with whatever it sent, which waits in the kernel meanwhile. Closing
idle connections instead would, now and then, cut one that a request is just travelling on, and would cost each client
a new handshake.

What users did that a store outside has not taken yet (it is away) goes before them, so that the next answer knows of
it.

Both ends of a slot's channel are the parent's, as its listening socket is: what was sent to a successor that died is
taken up by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Mapping

import orjson

from service.serving.protocol import BoundedProtocol, ServingState
from service.state.history import ByUser

_STEP_S = 0.001
_AT_ONCE = 64
_USERS_AT_ONCE = 16
_MESSAGE_BYTES = 1 << 20
MAIN, ADMIN, HISTORIES = b"m", b"a", b"h"
"""First byte of a message. A connection, by its server; the second byte tells whether a request came over it. Or users'
histories: JSON, [[user, [item, …]], …].
"""


async def hand_over(
    states: Mapping[bytes, ServingState], channel: socket.socket, limit_s: float, stop: Callable[[], bool]
) -> int:
    """Send every connection that is at rest, as it comes to rest, for `limit_s` seconds; returns how many were sent.

    `channel`: non-blocking. `stop`: ends it early. What is left is for the drain.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    sent = 0
    while not stop():
        for kind, state in states.items():
            state.flush()
            for connection in list(state.connections):
                if isinstance(connection, BoundedProtocol) and connection.at_rest:
                    sent += _send(kind, connection, channel)
        if loop.time() >= until or not any(state.connections for state in states.values()):
            break
        await asyncio.sleep(_STEP_S)
    return sent


async def leave_histories(histories: ByUser, channel: socket.socket, limit_s: float) -> int:
    """Send what a store has not taken; returns of how many users it could not be sent within `limit_s` seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    users = iter(histories.items())
    while some := list(itertools.islice(users, _USERS_AT_ONCE)):
        message = HISTORIES + orjson.dumps(some)
        while True:
            try:
                channel.send(message)
            except OSError:  # full
                if loop.time() >= until:
                    return len(some) + sum(1 for _ in users)
                await asyncio.sleep(_STEP_S)
            else:
                break
    return 0


def _send(kind: bytes, connection: BoundedProtocol, channel: socket.socket) -> bool:
    transport = connection.transport
    transport.pause_reading()
    descriptor = transport.get_extra_info("socket").fileno()
    try:
        socket.send_fds(channel, [kind + (b"1" if connection.used else b"0")], [descriptor])
    except (
        OSError
    ):  # the channel is full until its reader comes round, or too many descriptors are on their way
        transport.resume_reading()
        return False
    transport.abort()  # closes this process's descriptor; the connection is the successor's now
    return True


class Intake:
    """The successor's side."""

    def __init__(
        self,
        channel: socket.socket,
        makers: Mapping[bytes, Callable[[], BoundedProtocol]],
        take_up: Callable[[ByUser], None],
    ) -> None:
        """`channel`: non-blocking. `makers`: kind of server -> what makes a protocol of it. `take_up`: histories."""
        self._channel, self._makers, self._take_up = channel, makers, take_up
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to take up what is sent."""
        asyncio.get_running_loop().add_reader(self._channel, self.take)

    def close(self) -> None:
        """Take up no more."""
        asyncio.get_running_loop().remove_reader(self._channel)

    async def settled(self) -> None:
        """Wait for those that were taken last."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take(self) -> None:
        """Take up what waits in the channel."""
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            if message[:1] == HISTORIES:
                self._take_up({user: tuple(items) for user, items in orjson.loads(message[1:])})
            for descriptor in descriptors:
                task = loop.create_task(self._go_on(message[:1], descriptor, used=message[1:] == b"1"))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _go_on(self, kind: bytes, descriptor: int, *, used: bool) -> None:
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)

        def make() -> BoundedProtocol:
            protocol = self._makers[kind]()
            if used:
                protocol.go_on()
            return protocol

        with contextlib.suppress(OSError):  # the client has gone meanwhile
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)
