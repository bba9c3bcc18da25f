"""Stop without losing a request: every answer becomes its connection's last, then the port closes, then the rest ends.

Order: unready → wait → no new handshakes → empty the kernel's backlog → close the port → finish what is open.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from service.serving.listeners import refuse_new_connections, take_backlog
from service.serving.protocol import BoundedProtocol, ServingState

_STEP_S = 0.02
_HANDSHAKE_S = 0.1
"""Time for the last step of handshakes already begun: one round trip."""
QUIET_S = 1.0
"""An idle connection is closed after this long without a request: before, one may be on its way."""

ProtocolFactory = Callable[[], asyncio.Protocol]


def begin_closing(state: ServingState) -> None:
    """From now on each answer carries `Connection: close` and ends its connection."""
    state.closing = True
    for connection in list(state.connections):
        if isinstance(connection, BoundedProtocol):
            connection.last_answer()


async def close_port(
    servers: Iterable[asyncio.AbstractServer],
    listeners: Iterable[socket.socket],
    make_protocol: ProtocolFactory,
) -> None:
    """Close the port for good; every connection that the kernel had completed is taken over first.

    `listeners`: descriptors of the same sockets, apart from those the servers hold and close.
    """
    listeners = list(listeners)
    for listener in listeners:
        refuse_new_connections(listener)
    for server in servers:
        server.close()
    loop = asyncio.get_running_loop()
    until = loop.time() + _HANDSHAKE_S
    while True:
        last = loop.time() >= until
        for listener in listeners:
            for connection in take_backlog(listener):
                await loop.connect_accepted_socket(make_protocol, connection)
        if last:
            break
        await asyncio.sleep(_STEP_S)
    for listener in listeners:
        listener.close()


async def finish_connections(state: ServingState, limit_s: float) -> int:
    """Wait until every connection has ended; those still there after `limit_s` seconds are cut. Returns how many."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    while state.connections:
        now = loop.time()
        if now >= until:
            break
        for connection in list(state.connections):
            if (
                isinstance(connection, BoundedProtocol)
                and connection.idle
                and now - connection.since >= QUIET_S
            ):
                connection.transport.close()
        await asyncio.sleep(_STEP_S)
    left = [connection for connection in list(state.connections) if isinstance(connection, BoundedProtocol)]
    for connection in left:
        connection.transport.abort()
    return sum(not connection.idle for connection in left)
