"""A user's newest ten listens, in memory and in Redis: one suite for both, then what only Redis has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from service.domain import Deadline
from service.state.listens import KEPT, Listen, Listens, MemoryListens
from service.state.redis_listens import DATABASE, RedisListens, database_url

HOW_TO = "install redis-server (apt-get install redis-server)"
PATIENCE_S = 20.0
A_WHILE = 30.0


@contextlib.contextmanager
def redis_server(program: str, folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A real Redis on a free port of the loopback, keeping nothing."""
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        yield process, port
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def redis_port(
    component: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    with redis_server(component("redis-server", HOW_TO), tmp_path_factory.mktemp("redis")) as (_, port):
        yield port


def stored(port: int) -> redis_client.Redis:
    return redis_client.Redis(port=port, db=DATABASE)


def in_redis(port: int) -> RedisListens:
    return RedisListens(f"redis://127.0.0.1:{port}/0", timeout_s=A_WHILE)


def deadline() -> Deadline:
    return Deadline(A_WHILE)


@pytest.fixture(params=["memory", "redis"])
async def listens(request: pytest.FixtureRequest) -> AsyncIterator[Listens]:
    made: Listens
    if request.param == "memory":
        made = MemoryListens()
    else:
        port = request.getfixturevalue("redis_port")
        with contextlib.closing(stored(port)) as connection:
            connection.flushall()
        made = in_redis(port)
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


async def test_redis_holds_botifys_keys_and_values(redis_port: int) -> None:
    listens = in_redis(redis_port)
    await listens.start()
    for number in range(12):
        await listens.heard(77, Listen(number, number / 4), deadline())
    await listens.close()
    with contextlib.closing(stored(redis_port)) as connection:
        entries: Any = connection.lrange("user:77:listens", 0, -1)
    assert entries == [json.dumps({"track": n, "time": n / 4}).encode() for n in range(11, 1, -1)]


async def test_two_replicas_and_botify_itself_share_one_memory(redis_port: int) -> None:
    first, second = in_redis(redis_port), in_redis(redis_port)
    await first.start()
    await second.start()
    await first.heard(88, Listen(1, 0.5), deadline())
    with contextlib.closing(stored(redis_port)) as botify:
        botify.lpush("user:88:listens", json.dumps({"track": 2, "time": 1}))
    heard = await second.heard(88, Listen(3, 0.0), deadline())
    assert heard == (((3, 0.0), (2, 1.0), (1, 0.5)), False)
    await first.close()
    await second.close()


@pytest.mark.parametrize("entry", ["not json", '{"track": "x", "time": 1}', "[1, 2]", '{"track": 1}'])
async def test_entries_in_another_form_are_left_aside_and_said_so(redis_port: int, entry: str) -> None:
    with contextlib.closing(stored(redis_port)) as other:
        other.delete("user:99:listens")
        other.lpush("user:99:listens", entry)
    listens = in_redis(redis_port)
    await listens.start()
    assert await listens.heard(99, Listen(1, 1.0), deadline()) == (((1, 1.0),), True)
    await listens.close()


async def test_a_key_of_another_type_is_left_alone_and_said_so(redis_port: int) -> None:
    with contextlib.closing(stored(redis_port)) as other:
        other.set("user:98:listens", "somebody else's")
        listens = in_redis(redis_port)
        await listens.start()
        assert await listens.heard(98, Listen(1, 1.0), deadline()) == (((1, 1.0),), True)
        assert other.get("user:98:listens") == b"somebody else's"
        await listens.close()


async def test_without_redis_each_goes_on_from_its_own_and_comes_back_to_the_shared(
    component: Callable[[str, str], str], tmp_path: Path
) -> None:
    program = component("redis-server", HOW_TO)
    with redis_server(program, tmp_path) as (process, port):
        listens = in_redis(port)
        await listens.start()
        await listens.heard(1, Listen(1, 1.0), deadline())
        process.kill()
        process.wait()
        heard = await listens.heard(1, Listen(2, 1.0), deadline())
        assert heard == (((2, 1.0), (1, 1.0)), True)
    with redis_server(program, tmp_path, port) as _:
        until = time.monotonic() + PATIENCE_S
        while (heard := await listens.heard(1, Listen(3, 1.0), deadline())).degraded:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert heard.listens == ((3, 1.0),)  # what Redis knows since it is back
        await listens.close()


async def test_a_redis_that_hangs_costs_no_more_than_the_time_it_is_given(
    component: Callable[[str, str], str], tmp_path: Path
) -> None:
    with redis_server(component("redis-server", HOW_TO), tmp_path) as (process, port):
        listens = RedisListens(f"redis://127.0.0.1:{port}", timeout_s=0.01)
        await listens.start()
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(5):
            heard = await listens.heard(1, Listen(number, 1.0), Deadline(A_WHILE))
            assert heard.degraded
            assert heard.listens[0] == (number, 1.0)
        await listens.close()
