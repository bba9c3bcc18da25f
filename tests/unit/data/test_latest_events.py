"""Each pair's last event, in the user's order, whatever blocks the events are looked at in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import history
from models.data.dataset import Dataset
from service.bundle.ids import IntIds

USERS, ITEMS = 5, 4
events = st.lists(
    st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 3)), max_size=40
)


@given(drawn=events, timed=st.booleans(), in_order=st.booleans(), block=st.integers(1, 9))
def test_a_pair_stands_where_it_was_read_last(
    drawn: list[tuple[int, int, int]], timed: bool, in_order: bool, block: int
) -> None:
    if in_order:
        drawn = sorted(drawn, key=lambda event: (event[0], event[2]))
    columns = np.array(drawn, np.int64).reshape(-1, 3)
    dataset = Dataset(
        name="drawn",
        user_ids=IntIds(np.arange(USERS)),
        item_ids=IntIds(np.arange(ITEMS)),
        user_rows=columns[:, 0].astype(np.int32),
        item_rows=columns[:, 1].astype(np.int32),
        weights=np.arange(len(drawn), dtype=np.float32),  # tells the events apart
        times=columns[:, 2] if timed else None,
        time_kind="timestamp" if timed else None,
    )
    expected = []
    for user in range(USERS):
        mine = [
            (time if timed else 0, place, item)
            for place, (who, item, time) in enumerate(drawn)
            if who == user
        ]
        last = {item: (time, place) for time, place, item in sorted(mine)}
        expected += [
            (user, item, place) for item, (time, place) in sorted(last.items(), key=lambda one: one[1])
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_BLOCK_EVENTS", block)
        latest = history.latest_events(dataset)
    found = zip(latest.user_rows.tolist(), latest.item_rows.tolist(), latest.weights.tolist(), strict=True)
    assert list(found) == expected
