"""What users did since the bundle was built: one Protocol, and what all that keep it share.

A history is a user's items, each once, oldest first; an item that comes again moves to the newest place. It keeps
the newest `length` items and is forgotten once nothing was appended for `ttl_s`. `1` and `"1"` are two users, as
they are two items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from service.domain import Deadline, ItemId, UserId

COUNTED = frozenset({"view", "click", "purchase", "rating", "last"})
"""Types of events after which the user has seen the item. Being shown one (an impression) is not among them."""

Items = tuple[ItemId, ...]
ByUser = Mapping[UserId, Items]


class Interaction(Protocol):
    """What an event must tell."""

    @property
    def type(self) -> str:
        """Its kind: those in COUNTED enter the history."""

    @property
    def user_id(self) -> UserId:
        """Who."""

    @property
    def item_id(self) -> ItemId:
        """What."""


class Recent(NamedTuple):
    """A user's items, oldest first. `degraded`: the store did not say, so there may be more."""

    items: Items
    degraded: bool = False


NOTHING = Recent(())


class UserHistory(Protocol):
    """Keeps histories. Call from the event loop only. What goes wrong is counted and disclosed, never raised."""

    async def start(self) -> None:
        """Begin. Returns also where the store is away: it is looked for from then on."""

    async def recent(self, user_id: UserId, deadline: Deadline) -> Recent:
        """A user's history, or what is known of it before the deadline's reserve begins."""

    async def recent_many(self, user_ids: Sequence[UserId], deadline: Deadline) -> list[Recent]:
        """The same for several users, in their order and at one round trip's cost."""

    async def append(self, events: Iterable[Interaction]) -> None:
        """Take up events, oldest first. `recent` knows of them once this returns. Repeating events is harmless."""

    def flush_counts(self) -> None:
        """Hand what was counted to the metrics."""

    async def close(self) -> None:
        """Save what can be, and end. Does nothing the second time."""


def joined(older: Items, newer: Iterable[ItemId], length: int) -> Items:
    """Append items to a history."""
    places = dict.fromkeys(older)
    for item in newer:
        places.pop(item, None)
        places[item] = None
    items = tuple(places)
    return items if len(items) <= length else items[-length:]


def by_user(events: Iterable[Interaction], length: int) -> dict[UserId, Items]:
    """Group what events tell into one history a user."""
    grouped: dict[UserId, list[ItemId]] = {}
    for event in events:
        if event.type in COUNTED:
            grouped.setdefault(event.user_id, []).append(event.item_id)
    return {user_id: joined((), items, length) for user_id, items in grouped.items()}
