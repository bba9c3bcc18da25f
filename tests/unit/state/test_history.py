"""What every history does, wherever it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from histories_at import LENGTH, Did, Kept, did, in_memory, in_redis, in_sqlite, never
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_at import RedisServer, redis_server

from service.domain import ItemId, UserId
from service.state.history import NOTHING

Keep = Callable[[], contextlib.AbstractAsyncContextManager[Kept]]


@pytest.fixture(scope="module")
def redis(component: Callable[[str, str], str]) -> Iterator[RedisServer]:
    with redis_server(component) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def keep(request: pytest.FixtureRequest) -> Keep:
    """Makes a history with nothing in it."""
    if request.param == "memory":
        return in_memory
    if request.param == "sqlite":

        @contextlib.asynccontextmanager
        async def on_disk() -> AsyncIterator[Kept]:
            with tempfile.TemporaryDirectory() as folder:
                async with in_sqlite(Path(folder) / "history.sqlite") as kept:
                    yield kept

        return on_disk
    server: RedisServer = request.getfixturevalue("redis")

    @contextlib.asynccontextmanager
    async def in_emptied_redis() -> AsyncIterator[Kept]:
        server.run("FLUSHALL")
        async with in_redis(server) as kept:
            yield kept

    return in_emptied_redis


async def test_a_stranger_has_no_history(keep: Keep) -> None:
    async with keep() as kept:
        assert await kept.history.recent(1, never()) == NOTHING


async def test_items_come_oldest_first(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(1, 30, 10))
        await kept.history.append(did(1, 20))
        assert await kept.items(1) == (30, 10, 20)


async def test_only_the_newest_items_are_kept(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(1, *range(3)))
        await kept.history.append(did(1, *range(3, LENGTH + 2)))
        assert await kept.items(1) == tuple(range(2, LENGTH + 2))


async def test_an_item_that_comes_again_moves_to_the_newest_place(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(1, 10, 20, 30))
        await kept.history.append(did(1, 20, 10, 20))
        assert await kept.items(1) == (30, 10, 20)


async def test_ids_that_are_spelled_alike_are_not_taken_for_each_other(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append([*did(1, 10, "10"), *did("1", "a", 1)])
        for user_id, expected in ((1, (10, "10")), ("1", ("a", 1))):
            found = await kept.items(user_id)
            assert found == expected
            assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(
    "name", ['"', "[1", "1,2", "a:b", "\\", "\x00", "*", "имя", "💿", "x" * 256, "' OR 1=1; --"]
)
async def test_names_mean_nothing_to_the_store(keep: Keep, name: str) -> None:
    async with keep() as kept:
        await kept.history.append([*did(name, name), *did("other", 1)])
        assert await kept.items(name) == (name,)
        assert await kept.items(name + " ") == ()


async def test_the_largest_ids_survive(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(2**63 - 1, 2**63 - 1, -(2**63)))
        assert await kept.items(2**63 - 1) == (2**63 - 1, -(2**63))


async def test_being_shown_an_item_is_not_having_seen_it(keep: Keep) -> None:
    async with keep() as kept:
        kinds = ["impression", "view", "click", "purchase", "rating", "last"]
        await kept.history.append([Did(1, number, kind) for number, kind in enumerate(kinds)])
        assert await kept.items(1) == (1, 2, 3, 4, 5)


async def test_several_users_are_answered_in_their_order(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append([*did(1, 10), *did(2, 20)])
        recents = await kept.history.recent_many([2, 3, 1, 2], never())
        assert [recent.items for recent in recents] == [(20,), (), (10,), (20,)]
        assert await kept.history.recent_many([], never()) == []


async def test_a_history_is_forgotten_when_its_time_has_passed(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(1, 10))
        await kept.pass_ttl()
        assert await kept.items(1) == ()
        await kept.history.append(did(1, 20))
        assert await kept.items(1) == (20,)


async def test_everything_appended_at_once_is_there(keep: Keep) -> None:
    async with keep() as kept:
        users = range(90)
        await asyncio.gather(*(kept.history.append(did(user, user + 1, user + 2)) for user in users))
        recents = await kept.history.recent_many(users, never())
        assert [recent.items for recent in recents] == [(user + 1, user + 2) for user in users]


async def test_appends_to_one_user_at_once_lose_nothing(keep: Keep) -> None:
    async with keep() as kept:
        await asyncio.gather(*(kept.history.append(did(1, item)) for item in range(LENGTH)))
        assert sorted(map(int, await kept.items(1))) == list(range(LENGTH))


async def test_closing_twice_is_closing_once(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(1, 10))
        await kept.history.close()
        await kept.history.close()


async def test_what_is_counted_is_what_was_read_and_written(keep: Keep) -> None:
    async with keep() as kept:
        await kept.history.append(did(1, 10, 20))
        await kept.items(1)
        await kept.items(2)
        assert (kept.counts.hits, kept.counts.misses, kept.counts.saved) == (1, 1, 2)
        kept.history.flush_counts()


ids = st.one_of(st.integers(0, 3), st.sampled_from(["0", "1", "a"]))
batches = st.lists(st.lists(st.tuples(ids, ids), max_size=8), max_size=6)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # `keep` makes a new history each time
@given(batches=batches)
def test_any_appends_leave_each_users_newest_distinct_items(
    keep: Keep, batches: list[list[tuple[UserId, ItemId]]]
) -> None:
    async def check() -> None:
        expected: dict[UserId, list[ItemId]] = {}
        async with keep() as kept:
            for batch in batches:
                await kept.history.append([Did(user, item) for user, item in batch])
                for user, item in batch:
                    items = expected.setdefault(user, [])
                    if item in items:
                        items.remove(item)
                    items.append(item)
                for user in (0, 1, 2, 3, "0", "1", "a"):
                    found = await kept.items(user)
                    assert found == tuple(expected.get(user, []))[-LENGTH:]
                    assert len(set(map(repr, found))) == len(found)

    asyncio.run(check())
