"""Whom to ask for: popular users often, most of them rarely, and some that the service has never seen."""

from __future__ import annotations

import csv
import random
import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

UserId = int | str
HIGHEST_USER_ID = 10**9
"""Above it an id is malformed rather than unknown (404)."""

_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


class Zipf:
    """Draws ranks 0 .. n - 1 with probability proportional to 1 / (rank + 1) ** exponent; 0 is uniform."""

    def __init__(self, n: int, exponent: float) -> None:
        if n < 1:
            raise ValueError("there must be somebody to draw")
        if exponent < 0:
            raise ValueError(f"the Zipf exponent must not be negative (found {exponent})")
        self._heights: array[float] = array(
            "d", accumulate(float((rank + 1) ** -exponent) for rank in range(n))
        )

    def __len__(self) -> int:
        return len(self._heights)

    def probability(self, rank: int) -> float:
        """Chance of one rank."""
        below: float = self._heights[rank - 1] if rank else 0.0
        height: float = self._heights[rank] - below
        return height / self._heights[-1]

    def draw(self, rng: random.Random) -> int:
        """Draw one rank."""
        rank = bisect_right(self._heights, rng.random() * self._heights[-1])
        return min(rank, len(self._heights) - 1)  # a product rounded up to the total


class Crowd:
    """Known users by popularity, with a share of requests for users that nobody knows.

    Which users are the popular ones is shuffled by the seed, so that popularity doesn't follow the id.
    """

    def __init__(self, known: Sequence[UserId], *, exponent: float, cold_share: float, seed: int) -> None:
        if not 0 <= cold_share <= 1:
            raise ValueError(f"the cold share must be within 0..1 (found {cold_share})")
        self._rng = random.Random(seed)  # noqa: S311 - draws users, not secrets
        self._zipf = Zipf(len(known), exponent)
        self._by_popularity = list(known)
        self._rng.shuffle(self._by_popularity)
        self._known = frozenset(known)
        self._cold_share = cold_share
        self._integers = all(isinstance(user, int) for user in known)

    def draw(self) -> tuple[UserId, bool]:
        """Draw a user, and whether it is a cold one."""
        if self._rng.random() < self._cold_share:
            return self._stranger(), True
        return self._by_popularity[self._zipf.draw(self._rng)], False

    def _stranger(self) -> UserId:
        while True:
            number = self._rng.randrange(HIGHEST_USER_ID)
            user = number if self._integers else f"stranger-{number}"
            if user not in self._known:
                return user


def parse_ids(text: str) -> Sequence[UserId]:
    """Read `1..100000` (both ends are users), or a file's name: one id a line, or a table with a `user_id` column.

    Ids that are all integers become int, otherwise all stay text. Raises ValueError that says what is wrong.
    """
    ends = _RANGE.fullmatch(text)
    if ends is not None:
        first, last = int(ends[1]), int(ends[2])
        if not first <= last < HIGHEST_USER_ID:
            raise ValueError(f"user ids {text}: the ends must rise and stay below {HIGHEST_USER_ID}")
        return range(first, last + 1)
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"user ids {text!r}: neither a range such as 1..100000 nor a file")
    ids = _column(path)
    if not ids:
        raise ValueError(f"user ids {text}: the file lists nobody")
    return [int(user) for user in ids] if all(re.fullmatch("[0-9]{1,18}", user) for user in ids) else ids


def _column(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as lines:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    place = rows[0].index("user_id") if rows and "user_id" in rows[0] else None
    if place is None:
        return [row[0].strip() for row in rows]
    return [row[place].strip() for row in rows[1:]]
