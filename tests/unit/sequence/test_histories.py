from __future__ import annotations

import numpy as np
from factories import read_in_order
from hypothesis import given
from hypothesis import strategies as st

from models.sequence.histories import NO_TARGET, draw_batches, examined_users, histories_of

READINGS = st.lists(st.lists(st.integers(0, 19), max_size=30, unique=True), min_size=1, max_size=12).filter(
    any
)


@given(readings=READINGS, length=st.integers(1, 9), tokens=st.integers(1, 64), seed=st.integers(0, 3))
def test_every_event_is_a_target_once_and_what_is_read_is_what_came_before(
    readings: list[list[int]], length: int, tokens: int, seed: int
) -> None:
    histories = histories_of(read_in_order(readings, 20))
    batches = list(draw_batches(histories, np.random.default_rng(seed), length=length, tokens=tokens))

    pairs = []
    for read, targets in batches:
        assert read.shape == targets.shape
        assert read.shape[1] <= length
        assert read.size <= max(tokens, length)
        for row_read, row_targets in zip(read.tolist(), targets.tolist(), strict=True):
            there = [place for place, target in enumerate(row_targets) if target != NO_TARGET]
            assert there == list(range(len(there)))
            pairs += [(row_read[place], row_targets[place]) for place in there]
            assert all(row_read[place + 1] == row_targets[place] + 1 for place in there[:-1])
    wanted = []
    for user in range(len(histories)):
        own = histories.of(user).tolist()
        wanted += list(zip([0] + [item + 1 for item in own[:-1]], own, strict=True))
    assert sorted(pairs) == sorted(wanted)


def test_histories_are_cut_elsewhere_each_epoch_and_alike_for_a_seed() -> None:
    histories = histories_of(read_in_order([list(range(50)), list(range(49, -1, -1))], 50))

    def cuts(seed: int) -> list[list[int]]:
        batches = draw_batches(histories, np.random.default_rng(seed), length=8, tokens=32)
        return sorted(batches.windows.tolist())

    assert cuts(1) == cuts(1)
    assert cuts(1) != cuts(2)


def test_a_held_out_item_is_its_users_last() -> None:
    histories = histories_of(read_in_order([[3, 1, 2], [], [5, 6], [9, 8, 7, 4]], 10))
    examined = examined_users(histories, 10, seed=0)
    assert set(examined.tolist()) <= {0, 2}  # of those with three items or more

    learned = histories.without_last(np.array([0, 2]))

    assert [learned.item_rows[learned.of(user)].tolist() for user in range(3)] == [[3, 1], [5, 6], [9, 8, 7]]
    assert histories.user_rows.tolist() == [0, 2, 3]
