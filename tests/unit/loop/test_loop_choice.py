from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from loadtest.loop.choice import Candidate, Heard, Order, Sitting, best_of, judged, sittings_of
from loadtest.loop.programs import LoopError


def at(second: int) -> dt.datetime:
    return dt.datetime(2026, 1, 1, 0, 0, second)


def heard(*rows: tuple[str, int, int, float]) -> list[Heard]:
    return [(*row, at(second)) for second, row in enumerate(rows)]


def test_a_sitting_knows_what_was_liked_until_its_first_track_and_not_what_comes() -> None:
    sittings = sittings_of(
        heard(
            ("next", 1, 10, 1.0), ("next", 2, 90, 1.0), ("next", 1, 11, 0.2), ("last", 1, 12, 0.9),
            ("next", 1, 13, 1.0), ("next", 1, 11, 0.6), ("next", 1, 11, 0.0), ("last", 1, 14, 0.1),
            ("last", 2, 91, 0.4),
        ),
        0.5,
    )  # fmt: skip
    assert [sitting for sitting, _ in sittings] == [
        Sitting(1, (10,), {11: 0.2, 12: 0.9}),
        Sitting(1, (10, 12, 13), {11: 0.6, 14: 0.1}),
    ]  # of user 2 there is one track after the first: nothing to put in order
    assert [began for _, began in sittings] == [at(0), at(4)]


SITTINGS = [
    Sitting(user, (), {track: random.Random(f"{user} {track}").random() for track in range(6)})
    for user in range(300)
]


def by_time(*, best_first: bool) -> Callable[[Sequence[Sitting]], list[list[int]]]:
    def ordered(sittings: Sequence[Sitting]) -> list[list[int]]:
        return [sorted(one.played, key=one.played.__getitem__, reverse=best_first) for one in sittings]

    return ordered


def test_the_right_order_is_one_the_wrong_one_nought_and_chance_a_half() -> None:
    assert judged(SITTINGS, by_time(best_first=True)).share == pytest.approx(1.0)
    assert judged(SITTINGS, by_time(best_first=False)).share == pytest.approx(0.0)
    chance = judged(SITTINGS, lambda some: [list(one.played) for one in some])
    assert abs(chance.share - 0.5) < 4 * chance.error
    assert 0 < chance.error < 0.05
    assert chance.sittings == 300


def test_a_pair_counts_by_how_much_its_tracks_differ() -> None:
    sitting = Sitting(1, (), {1: 1.0, 2: 0.9, 3: 0.0})
    order = judged([sitting], lambda _: [[2, 1, 3]])  # one pair wrong, by a tenth
    assert order.share == pytest.approx((1.0 + 0.9) / (1.0 + 0.9 + 0.1))


def test_tracks_that_were_all_heard_alike_say_nothing() -> None:
    with pytest.raises(LoopError, match="nothing to judge by"):
        judged([Sitting(1, (), {1: 0.5, 2: 0.5})], lambda _: [[1, 2]])


def test_the_best_is_the_highest_and_the_first_of_equals() -> None:
    orders = {
        Candidate(name, Path("a.toml")): Order(share, 0.01, 9)
        for name, share in (("knn", 0.6), ("als", 0.7), ("ease", 0.7))
    }
    assert str(best_of(orders)) == "als/a"
