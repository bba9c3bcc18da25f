"""A user's newest ten listens, in memory and in Redis: one suite for both, then what only Redis has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis as redis_client
from redis_at import RedisServer, redis_server

from service.domain import Deadline
from service.state.listens import KEPT, Listen, Listens, MemoryListens
from service.state.redis_listens import DATABASE, RedisListens, database_url

PATIENCE_S = 20.0
A_WHILE = 30.0


@pytest.fixture(scope="module")
def server(component: Callable[[str, str], str]) -> Iterator[RedisServer]:
    with redis_server(component) as running:
        yield running


def stored(server: RedisServer) -> redis_client.Redis:
    return redis_client.Redis(unix_socket_path=str(server.socket), db=DATABASE)


def in_redis(server: RedisServer, *, timeout_s: float = A_WHILE) -> RedisListens:
    return RedisListens(server.url, timeout_s=timeout_s)


def deadline() -> Deadline:
    return Deadline(A_WHILE)


@pytest.fixture(params=["memory", "redis"])
async def listens(request: pytest.FixtureRequest) -> AsyncIterator[Listens]:
    made: Listens
    if request.param == "memory":
        made = MemoryListens()
    else:
        server = request.getfixturevalue("server")
        server.run("FLUSHALL")
        made = in_redis(server)
    await made.start()
    yield made
    await made.close()


async def test_a_listen_is_known_at_once_newest_first(listens: Listens) -> None:
    assert (await listens.heard(1, Listen(5, 0.5), deadline())) == (((5, 0.5),), False)
    assert (await listens.heard(1, Listen(6, 0.25), deadline())).listens == ((6, 0.25), (5, 0.5))


async def test_repeats_are_kept_and_the_oldest_go(listens: Listens) -> None:
    for number in range(KEPT + 5):
        heard = await listens.heard(1, Listen(number // 2, number / 100), deadline())
    newest = range(KEPT + 4, 4, -1)
    assert heard.listens == tuple((number // 2, number / 100) for number in newest)


async def test_users_do_not_hear_each_other(listens: Listens) -> None:
    asked = [listens.heard(user, Listen(user * 7, 1.0), deadline()) for user in range(200)]
    for user, heard in enumerate(await asyncio.gather(*asked)):
        assert heard.listens == ((user * 7, 1.0),)


async def test_extreme_numbers_come_back_as_they_went(listens: Listens) -> None:
    for listen in (Listen(2**63 - 1, 1e300), Listen(-(2**63), -5e-324), Listen(0, 0.1 + 0.2)):
        heard = await listens.heard(10**18 - 1, listen, deadline())
        assert heard.listens[0] == listen


async def test_memory_is_bounded_and_forgets_whom_it_heard_least_recently() -> None:
    listens = MemoryListens(users=3)
    for user in (1, 2, 3, 1, 4):
        await listens.heard(user, Listen(user, 1.0), deadline())
    assert len(listens) == 3
    assert len((await listens.heard(1, Listen(9, 1.0), deadline())).listens) == 3
    assert len((await listens.heard(2, Listen(9, 1.0), deadline())).listens) == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1", "redis://h:1/2"),
        ("redis://h:1/0", "redis://h:1/2"),
        ("rediss://u:p%40@h:1/7?db=9&ssl_cert_reqs=none", "rediss://u:p%40@h:1/2?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=2"),
        ("unix://u:p@/run/redis.sock", "unix://u:p@/run/redis.sock?db=2"),
    ],
)
def test_listens_have_a_database_of_their_own(url: str, expected: str) -> None:
    assert database_url(url) == expected


async def test_redis_holds_botifys_keys_and_values(server: RedisServer) -> None:
    listens = in_redis(server)
    await listens.start()
    for number in range(12):
        await listens.heard(77, Listen(number, number / 4), deadline())
    await listens.close()
    with contextlib.closing(stored(server)) as connection:
        entries: Any = connection.lrange("user:77:listens", 0, -1)
    assert entries == [json.dumps({"track": n, "time": n / 4}).encode() for n in range(11, 1, -1)]


async def test_two_replicas_and_botify_itself_share_one_memory(server: RedisServer) -> None:
    first, second = in_redis(server), in_redis(server)
    await first.start()
    await second.start()
    await first.heard(88, Listen(1, 0.5), deadline())
    with contextlib.closing(stored(server)) as botify:
        botify.lpush("user:88:listens", json.dumps({"track": 2, "time": 1}))
    heard = await second.heard(88, Listen(3, 0.0), deadline())
    assert heard == (((3, 0.0), (2, 1.0), (1, 0.5)), False)
    await first.close()
    await second.close()


@pytest.mark.parametrize("entry", ["not json", '{"track": "x", "time": 1}', "[1, 2]", '{"track": 1}'])
async def test_entries_in_another_form_are_left_aside_and_said_so(server: RedisServer, entry: str) -> None:
    with contextlib.closing(stored(server)) as other:
        other.delete("user:99:listens")
        other.lpush("user:99:listens", entry)
    listens = in_redis(server)
    await listens.start()
    assert await listens.heard(99, Listen(1, 1.0), deadline()) == (((1, 1.0),), True)
    await listens.close()


async def test_a_key_of_another_type_is_left_alone_and_said_so(server: RedisServer) -> None:
    with contextlib.closing(stored(server)) as other:
        other.set("user:98:listens", "somebody else's")
        listens = in_redis(server)
        await listens.start()
        assert await listens.heard(98, Listen(1, 1.0), deadline()) == (((1, 1.0),), True)
        assert other.get("user:98:listens") == b"somebody else's"
        await listens.close()


async def test_without_redis_each_goes_on_from_its_own_and_comes_back_to_the_shared(
    component: Callable[[str, str], str],
) -> None:
    with redis_server(component) as server:
        listens = in_redis(server)
        await listens.start()
        await listens.heard(1, Listen(1, 1.0), deadline())
        server.kill()
        heard = await listens.heard(1, Listen(2, 1.0), deadline())
        assert heard == (((2, 1.0), (1, 1.0)), True)
        server.start()
        until = time.monotonic() + PATIENCE_S
        while (heard := await listens.heard(1, Listen(3, 1.0), deadline())).degraded:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert heard.listens == ((3, 1.0),)  # what Redis knows since it is back
        await listens.close()


async def test_a_redis_that_hangs_keeps_nobody_waiting(component: Callable[[str, str], str]) -> None:
    with redis_server(component) as server:
        listens = in_redis(server, timeout_s=0.01)
        await listens.start()
        server.freeze()
        for number in range(5):
            heard = await listens.heard(1, Listen(number, 1.0), deadline())
            assert heard.degraded
            assert heard.listens[0] == (number, 1.0)
        await listens.close()


async def test_a_spent_budget_is_not_spent_on_redis(server: RedisServer) -> None:
    listens = in_redis(server)
    await listens.start()
    assert await listens.heard(5, Listen(1, 1.0), Deadline(0.0)) == (((1, 1.0),), True)
    await listens.close()
