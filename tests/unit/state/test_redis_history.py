"""What only Redis does: replicas share it, it may be away, and anybody may write to its keys."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator

import pytest
from histories_at import LENGTH, did, in_redis, never, until, until_told
from redis_at import RedisServer, proxied, redis_server

from service.domain import Deadline
from service.state.history import Recent
from service.state.metrics import CLOSED
from service.state.stored import Unsaved


@pytest.fixture(scope="module")
def component_server(component: Callable[[str, str], str]) -> Iterator[RedisServer]:
    with redis_server(component) as server:
        yield server


@pytest.fixture
def server(component_server: RedisServer) -> RedisServer:
    component_server.run("FLUSHALL")
    return component_server


async def test_replicas_share_what_each_of_them_heard(server: RedisServer) -> None:
    async with in_redis(server) as one, in_redis(server) as other:
        await one.history.append(did(1, 10))
        await other.history.append(did(1, 20))
        assert await one.items(1) == await other.items(1) == (10, 20)


async def test_a_history_is_a_text_that_a_person_can_read(server: RedisServer) -> None:
    async with in_redis(server, ttl_s=50) as kept:
        await kept.history.append([*did(17, 50, 1), *did("17", "item/3")])
    assert server.run("GET", "reco:history:17") == b"[17,50]\n[17,1]"
    assert server.run("GET", 'reco:history:"17"') == b'["17","item/3"]'
    assert 0 < server.run("PTTL", "reco:history:17") <= 50_000


async def test_appending_lets_a_history_live_on(server: RedisServer) -> None:
    async with in_redis(server) as kept:
        await kept.history.append(did(1, 10))
        server.run("PEXPIRE", "reco:history:1", 60_000)
        await kept.history.append(did(1, 20))
        assert server.run("PTTL", "reco:history:1") > 60_000


@pytest.mark.parametrize(
    "elements",
    [
        [b"[2,10]"],
        [b"[1,10]", b"[2,20]"],
        [b'["1",10]'],
        [b"[true,10]"],
        [b"[1.0,10]"],
        [b"[1]"],
        [b"[1,2,3]"],
        [b"[1,null]"],
        [b"[1,[2]]"],
        [b"10"],
        [b"[1,10]", b""],
        [b"\xff"],
        [b"[1,10][1,20]"],
        [b"[1,10", b"1,20]"],
    ],
)
async def test_another_users_or_unreadable_values_are_a_disclosed_miss(
    server: RedisServer, elements: list[bytes]
) -> None:
    server.run("SET", "reco:history:1", b"\n".join(elements))
    async with in_redis(server) as kept:
        await kept.history.append(did(2, 20))
        found = await kept.history.recent_many([1, 2], never())
        assert found == [Recent((), degraded=True), Recent((20,))]
        assert kept.counts.troubles["garbage"] == 1
        kept.history.flush_counts()
        assert kept.counts.breaker == CLOSED


async def test_a_key_of_another_type_is_left_alone_and_holds_up_nobody(server: RedisServer) -> None:
    server.run("RPUSH", "reco:history:1", "[1,30]")
    async with in_redis(server) as kept:
        await kept.history.append([*did(1, 10), *did(2, 20)])
        found = await kept.history.recent_many([1, 2], never())
        assert found == [Recent((), degraded=True), Recent((20,))]
        assert kept.counts.lost == 1
        kept.history.flush_counts()
        assert kept.counts.unsaved == 0
    assert server.run("LRANGE", "reco:history:1", 0, -1) == [b"[1,30]"]


async def test_what_is_not_the_users_own_goes_with_the_next_event(server: RedisServer) -> None:
    server.run("SET", "reco:history:1", b"nonsense\n[1,10]\n[2,20]\n")
    async with in_redis(server) as kept:
        await kept.history.append(did(1, 30))
        assert await kept.items(1) == (10, 30)


async def test_what_a_full_server_refuses_is_known_here_and_saved_later(server: RedisServer) -> None:
    async with in_redis(server) as kept:
        await kept.history.append(did(1, 10))
        server.run("CONFIG", "SET", "maxmemory", 1)
        try:
            await kept.history.append(did(1, 20))
            assert await kept.items(1) == (10, 20)
            assert server.run("GET", "reco:history:1") == b"[1,10]"
            assert (kept.counts.saved, kept.counts.deferred) == (1, 1)
        finally:
            server.run("CONFIG", "SET", "maxmemory", 0)
        await until(lambda: kept.counts.saved == 2)
        assert server.run("GET", "reco:history:1") == b"[1,10]\n[1,20]"


async def test_what_was_acknowledged_while_it_was_away_is_saved_when_it_is_back(server: RedisServer) -> None:
    async with proxied(server) as proxy, in_redis(server, url=proxy.url) as kept, in_redis(server) as other:
        await kept.history.append(did(1, 10))
        proxy.refusing = True
        proxy.cut()
        await kept.history.append([*did(1, 20), *did(2, 30)])
        found = await kept.history.recent_many([1, 2, 3], never())
        assert found == [
            Recent((20,), degraded=True),
            Recent((30,), degraded=True),
            Recent((), degraded=True),
        ]
        kept.history.flush_counts()
        assert (kept.counts.unsaved, kept.counts.breaker == CLOSED) == (2, False)
        proxy.refusing = False
        assert await until_told(kept.history, 1) == (10, 20)
        await until(lambda: kept.counts.saved == 3)
        assert await other.items(1) == (10, 20)
        assert await other.items(2) == (30,)


async def test_it_boots_without_a_server(component: Callable[[str, str], str]) -> None:
    with redis_server(component, started=False) as server:
        async with in_redis(server) as kept:
            assert await kept.history.recent(1, never()) == Recent((), degraded=True)
            await kept.history.append(did(1, 10))
            assert await kept.history.recent(1, never()) == Recent((10,), degraded=True)
            server.start()
            assert await until_told(kept.history, 1) == (10,)


async def test_nobody_is_asked_about_nobody(server: RedisServer) -> None:
    async with proxied(server) as proxy, in_redis(server, url=proxy.url) as kept:
        before = proxy.commands
        assert await kept.history.recent_many([], never()) == []
        assert proxy.commands == before


async def test_a_deadline_is_kept_before_the_reserve(server: RedisServer) -> None:
    async with in_redis(server) as kept:
        await kept.history.append(did(1, 10))
        assert await kept.history.recent(1, Deadline(0.0)) == Recent((), degraded=True)
        assert kept.counts.troubles["late"] == 1


async def test_nobody_ever_gets_what_is_anothers(server: RedisServer) -> None:
    """Readers are cancelled and connections cut all the while."""
    chance = random.Random(3)
    users = range(50)
    async with proxied(server) as proxy, in_redis(server, url=proxy.url) as kept:
        await kept.history.append([event for user in users for event in did(user, f"of {user}")])
        whole = 0

        async def read(user: int) -> None:
            nonlocal whole
            recent = await kept.history.recent(user, never())
            assert recent.items == (f"of {user}",) or recent == Recent((), degraded=True)
            whole += not recent.degraded

        for number in range(60):
            reading = [asyncio.create_task(read(user)) for user in users]
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            for task in chance.sample(reading, 10):
                task.cancel()
            if number % 10 == 9:
                proxy.cut()
            for outcome in await asyncio.gather(*reading, return_exceptions=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
            await asyncio.sleep(0.005)
        assert whole > 200
        assert kept.counts.troubles["garbage"] == 0


def test_what_waits_is_bounded_and_the_longest_waiting_goes_first() -> None:
    unsaved = Unsaved(LENGTH, most=6)
    assert unsaved.add({1: (10, 20, 30)}) == 0
    assert unsaved.add({2: (10, 20)}) == 0
    assert unsaved.add({1: (30, 40)}) == 0
    assert (unsaved.n_items, unsaved.of(1)) == (6, (10, 20, 30, 40))
    assert unsaved.add({3: (10,)}) == 4
    assert (unsaved.n_items, unsaved.of(1), unsaved.of(2), unsaved.of(3)) == (3, (), (10, 20), (10,))
    assert unsaved.first(1) == {2: (10, 20)}


def test_what_came_while_it_was_saved_is_not_forgotten() -> None:
    unsaved = Unsaved(LENGTH)
    unsaved.add({1: (10,), 2: (20,)})
    saving = unsaved.first(10)
    unsaved.add({1: (30,)})
    unsaved.taken(saving)
    assert (unsaved.of(1), unsaved.of(2), unsaved.n_items) == ((10, 30), (), 2)
    unsaved.taken(unsaved.first(10))
    assert unsaved.n_items == 0


async def test_a_caller_who_gives_up_waiting_loses_no_event(server: RedisServer) -> None:
    async with proxied(server) as proxy, in_redis(server, url=proxy.url) as kept:
        proxy.delay_s = 0.2
        appending = asyncio.create_task(kept.history.append(did(1, 10)))
        await asyncio.sleep(0.01)
        appending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await appending
        proxy.delay_s = 0.0
        await until(lambda: server.run("GET", "reco:history:1") == b"[1,10]")
        assert await kept.items(1) == (10,)
