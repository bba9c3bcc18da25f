"""The botify profile's memory of a user: the newest listens, each a track and the share of it that was heard."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, Protocol

from service.domain import Deadline

KEPT = 10
"""Listens that are remembered of a user."""
MOST_USERS = 200_000


class Listen(NamedTuple):
    """One track heard. time: share of it, 0 to 1 from a well-behaved client."""

    track: int
    time: float


class Heard(NamedTuple):
    """A user's listens, newest first. `degraded`: where they are kept did not answer, so there may be more."""

    listens: tuple[Listen, ...]
    degraded: bool = False


class Listens(Protocol):
    """Keeps listens. What goes wrong is counted and disclosed, never raised."""

    async def start(self) -> None:
        """Begin. Returns also where the store is away."""

    async def heard(self, user_id: int, listen: Listen, deadline: Deadline) -> Heard:
        """Remember a listen, and tell the newest ones, this one among them."""

    async def close(self) -> None:
        """End."""


class MemoryListens:
    """In this process's memory; of more than `users` users the one heard of least recently is forgotten."""

    def __init__(self, *, users: int = MOST_USERS) -> None:
        self._most = users
        self._users: OrderedDict[int, tuple[Listen, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._users)

    async def start(self) -> None:
        """There is nothing to begin."""

    async def heard(self, user_id: int, listen: Listen, deadline: Deadline) -> Heard:  # noqa: ARG002 (the Protocol's)
        """Remember a listen and tell the newest ones; never suspends."""
        return Heard(self.add(user_id, listen))

    def add(self, user_id: int, listen: Listen) -> tuple[Listen, ...]:
        """Remember a listen; returns the newest ones."""
        users = self._users
        listens = (listen, *users.get(user_id, ())[: KEPT - 1])
        users[user_id] = listens
        users.move_to_end(user_id)
        if len(users) > self._most:
            users.popitem(last=False)
        return listens

    async def close(self) -> None:
        """Forget everybody."""
        self._users.clear()
