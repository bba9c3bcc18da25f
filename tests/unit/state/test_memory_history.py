"""What only memory does: it is bounded by the number of users, and costs the event loop no turn."""

from __future__ import annotations

import pytest
from histories_at import Clock, did, in_memory, never, new_counts

from service.state.history import NOTHING, Recent
from service.state.memory import MemoryHistory


async def test_the_user_who_was_away_longest_goes_first() -> None:
    async with in_memory(users=3) as kept:
        for user in (1, 2, 3):
            await kept.history.append(did(user, 10))
        await kept.items(1)
        await kept.history.append(did(4, 10))
        assert [await kept.items(user) for user in (1, 2, 3, 4)] == [(10,), (), (10,), (10,)]


async def test_no_crowd_makes_it_larger() -> None:
    history = MemoryHistory(new_counts(), length=2, ttl_s=60, users=7)
    for begin in range(0, 1000, 100):
        await history.append([event for user in range(begin, begin + 100) for event in did(user, 1, 2, 3)])
        assert len(history) == 7


async def test_reading_does_not_keep_a_history_alive_but_appending_does() -> None:
    clock = Clock()
    history = MemoryHistory(new_counts(), length=5, ttl_s=10, users=5, clock=clock)
    await history.append(did(1, 10))
    clock.now += 9
    assert (await history.recent(1, never())).items == (10,)
    await history.append(did(1, 20))
    clock.now += 9
    assert (await history.recent(1, never())).items == (10, 20)
    clock.now += 1
    assert (await history.recent(1, never())) == NOTHING


@pytest.mark.parametrize("user", [1, 2])
async def test_a_read_never_suspends(user: int) -> None:
    history = MemoryHistory(new_counts(), length=5, ttl_s=10, users=5)
    await history.append(did(1, 10))
    reading = history.recent(user, never())
    with pytest.raises(StopIteration) as finished:
        reading.send(None)
    assert isinstance(finished.value.value, Recent)
