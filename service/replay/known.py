"""What a user was known to have done when they were answered, found again in the event log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from service.domain import ItemId
from service.errors import InputError
from service.events.reading import logged_at
from service.events.schema import digest_of, is_slate
from service.replay.record import Asked
from service.state.history import COUNTED

_SLACK_MS = 5_000
"""An event may be logged by a clock a little ahead of the one that dated the answer."""


class Known:
    """The feedback of some users, in the order in which it came to the log."""

    def __init__(self, records: Iterable[Mapping[str, Any]], users: Iterable[Any]) -> None:
        wanted = {_key(user) for user in users}
        self._done: dict[tuple[str, Any], tuple[list[int], list[ItemId]]] = {}
        for record in records:
            key = _key(record["user_id"])
            if key in wanted and not is_slate(record) and record["type"] in COUNTED:
                times, items = self._done.setdefault(key, ([], []))
                times.append(logged_at(record))
                items.append(record["item_id"])

    def recent_of(self, asked: Asked) -> tuple[ItemId, ...]:
        """The live history of an answer, oldest first. Raises InputError where the log does not have it.

        A history holds the newest of a user's distinct items. Where it began (the store forgets, and starts anew) the
        log does not say, but its length and digest tell it from every other: each moment's newest items are tried, the
        latest moment first.
        """
        if not asked.recent:
            return ()
        times, items = self._done.get(_key(asked.user), ([], []))
        for end in range(bisect_right(times, asked.at_ms + _SLACK_MS), 0, -1):
            newest = _newest(items, end, asked.recent)
            if len(newest) == asked.recent and digest_of(newest) == asked.digest:
                return newest
        raise InputError(
            f"{asked.event_id}: its user was known to have {asked.recent} recent items, which the event log does not "
            "have (digest {digest}): they came another way, or their segments are gone".format(
                digest=asked.digest
            )
        )


def _newest(items: list[ItemId], end: int, n: int) -> tuple[ItemId, ...]:
    """Up to n distinct of the first `end` items, each at its last place, oldest first."""
    found: dict[ItemId, None] = {}
    for place in range(end - 1, -1, -1):
        found.setdefault(items[place])
        if len(found) == n:
            break
    return tuple(reversed(found))


def _key(user: Any) -> tuple[str, Any]:
    """`1` and `"1"` are two users."""
    return type(user).__name__, user
