"""The link: bounded in time, never out of step, back by itself; against a real server and a proxy that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from histories_at import PATIENT_S, until
from redis_at import RedisServer, proxied, redis_server

from service.errors import InputError
from service.state import redis_link
from service.state.redis_link import RedisAway, RedisLink, Refused

SLOW_S = 0.05
CAP_S = 0.01


@pytest.fixture(scope="module")
def component_server(component: Callable[[str, str], str]) -> Iterator[RedisServer]:
    with redis_server(component) as server:
        yield server


@pytest.fixture
def server(component_server: RedisServer) -> RedisServer:
    component_server.run("FLUSHALL")
    return component_server


@contextlib.asynccontextmanager
async def linked(url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, timeout_s=timeout_s)
    await link.start()
    try:
        yield link
    finally:
        await link.close()


async def echo(link: RedisLink, word: str, timeout_s: float = PATIENT_S) -> object:
    (reply,) = await link.ask([("ECHO", word)], timeout_s)
    return reply


def is_open(link: RedisLink) -> Callable[[], bool]:
    return lambda: link.breaker.state != "closed"


def is_closed(link: RedisLink) -> Callable[[], bool]:
    return lambda: link.breaker.state == "closed"


async def test_commands_are_answered_in_their_order(server: RedisServer) -> None:
    async with linked(server.url) as link:
        replies = await link.ask([("SET", "a", 1), ("GET", "a"), ("MGET", "a", b"\x00")], PATIENT_S)
        assert replies == [b"OK", b"1", [b"1", None]]
        assert await link.ask([], PATIENT_S) == []


async def test_a_refused_command_leaves_the_others_alone(server: RedisServer) -> None:
    async with linked(server.url) as link:
        replies = await link.ask(
            [("SET", "a", "x"), ("LPUSH", "a", 1), ("NONSENSE",), ("GET", "a")], PATIENT_S
        )
        assert replies[0], replies[3] == (b"OK", b"x")
        assert [isinstance(reply, Refused) for reply in replies] == [False, True, True, False]
        assert link.breaker.state == "closed"


async def test_many_callers_each_get_their_own(server: RedisServer) -> None:
    async with linked(server.url) as link:
        words = [str(number) for number in range(1000)]
        replies = await asyncio.gather(*(echo(link, word) for word in words))
        assert replies == [word.encode() for word in words]


async def test_callers_who_give_up_leave_nothing_to_the_next(server: RedisServer) -> None:
    """The fault of redis-py#2665, with callers cancelled at every moment."""
    chance = random.Random(7)
    async with linked(server.url) as link:

        async def ask(word: str) -> None:
            with contextlib.suppress(RedisAway):
                assert await echo(link, word) == word.encode()

        for begin in range(0, 2000, 50):
            asking = [asyncio.create_task(ask(str(number))) for number in range(begin, begin + 50)]
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            given_up = chance.sample(asking, 25)
            for task in given_up:
                task.cancel()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            faults = [outcome for outcome in outcomes if outcome is not None]
            assert all(isinstance(fault, asyncio.CancelledError) for fault in faults), faults
        assert link.breaker.state == "closed"


async def test_a_caller_in_a_hurry_does_not_cost_the_others_the_connection(server: RedisServer) -> None:
    async with proxied(server) as proxy, linked(proxy.url) as link:
        proxy.delay_s = SLOW_S
        hurried, patient = await asyncio.gather(
            echo(link, "a", 0.001), echo(link, "b"), return_exceptions=True
        )
        assert isinstance(hurried, RedisAway)
        assert hurried.reason == "late"
        assert patient == b"b"
        assert link.opened == 0


async def test_no_time_is_no_question(server: RedisServer) -> None:
    async with linked(server.url) as link:
        for timeout_s in (0.0, -1.0):
            with pytest.raises(RedisAway):
                await echo(link, "a", timeout_s)


async def test_without_a_server_it_says_so_at_once(component: Callable[[str, str], str]) -> None:
    with redis_server(component, started=False) as server:
        async with linked(server.url) as link:
            with pytest.raises(RedisAway) as away:
                await echo(link, "a")
            assert away.value.reason == "away"
            server.start()
            await until(is_closed(link))
            assert await echo(link, "a") == b"a"


async def test_a_killed_server_is_noticed_without_a_request_and_found_again(
    component: Callable[[str, str], str],
) -> None:
    with redis_server(component) as server:
        async with linked(server.url) as link:
            server.kill()
            await until(is_open(link))
            with pytest.raises(RedisAway):
                await echo(link, "a")
            server.start()
            await until(is_closed(link))
            assert link.opened == 1
            assert await echo(link, "a") == b"a"


async def test_a_frozen_server_is_asked_once_and_found_again(component: Callable[[str, str], str]) -> None:
    with redis_server(component) as server:
        async with linked(server.url, CAP_S) as link:
            await until(is_closed(link))
            server.freeze()
            asking = [asyncio.create_task(echo(link, str(number))) for number in range(20)]
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(outcome, RedisAway) for outcome in outcomes)
            await until(is_open(link))
            server.thaw()
            await until(is_closed(link))


async def test_a_slow_server_stays_out_until_it_is_fast_again(server: RedisServer) -> None:
    async with proxied(server) as proxy, linked(proxy.url, CAP_S) as link:
        await until(is_closed(link))
        proxy.delay_s = SLOW_S
        with contextlib.suppress(RedisAway):
            await echo(link, "a", CAP_S)
        await until(lambda: link.breaker.failures >= 3)  # its probes are late too
        assert link.breaker.state != "closed"
        proxy.delay_s = 0.0
        await until(is_closed(link))


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n+OK\r\n",
        b"$-1\r\n",
        b"*2\r\n$1\r\na\r\n",
        b"*1000000000\r\n",
        b"*1\r\n" * 10_000,
        b"$99999999999\r\n",
        b"\x00\xff" * 100,
        b":12\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n-LOADING\r\n",
        b"-NOAUTH Authentication required.\r\n-NOAUTH\r\n",
        b"-ERR\r\n-ERR\r\n",
        b"*-1\r\n*0\r\n",
    ],
)
async def test_garbage_is_no_answer(
    server: RedisServer, garbage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "CONNECT_S", 0.1)
    async with proxied(server) as proxy, linked(proxy.url, 0.1) as link:
        await until(is_closed(link))
        proxy.garbage = garbage
        with pytest.raises(RedisAway):
            await echo(link, "a")
        await until(is_open(link))
        await until(lambda: link.breaker.failures >= 2)
        proxy.garbage = None
        await until(is_closed(link))


async def test_answers_that_are_one_behind_are_nobodys(server: RedisServer) -> None:
    """A server, or something on the way, that answers once too often."""
    async with proxied(server) as proxy, linked(proxy.url) as link:
        proxy.garbage = b"$1\r\nx\r\n$1\r\na\r\n$1\r\n2\r\n"
        with pytest.raises(RedisAway):
            await echo(link, "a")
        assert link.opened == 1


async def test_a_flapping_server_is_never_out_of_step(server: RedisServer) -> None:
    chance = random.Random(11)
    async with proxied(server) as proxy, linked(proxy.url) as link:
        answered = 0

        async def ask(number: int) -> None:
            nonlocal answered
            while answered < 300:
                await asyncio.sleep(0.001)
                word = f"{number}/{chance.random()}"
                with contextlib.suppress(RedisAway):
                    assert await echo(link, word) == word.encode()
                    answered += 1
                    if answered % 30 == 0:
                        proxy.cut()

        await asyncio.gather(*(ask(number) for number in range(10)))
        assert link.opened > 2


async def test_a_pause_of_our_own_is_not_held_against_the_server(server: RedisServer) -> None:
    async with linked(server.url, CAP_S) as link:
        await until(is_closed(link))
        for _ in range(5):
            asking = asyncio.create_task(echo(link, "a"))
            await asyncio.sleep(0)  # asked
            await asyncio.sleep(0)  # sent
            time.sleep(0.2)  # noqa: ASYNC251 - the pause that the test is about
            await asking
        assert link.opened == 0


async def test_it_asks_a_password_and_a_database_of_the_url(component: Callable[[str, str], str]) -> None:
    with redis_server(component) as server:
        server.run("ACL", "SETUSER", "reco", "on", ">se/cret", "~*", "+@all")
        async with linked(f"unix://reco:se%2Fcret@{server.socket}?db=3") as link:
            assert await link.ask([("SET", "a", 1)], PATIENT_S) == [b"OK"]
        assert server.run("DBSIZE") == 0
        assert server.run("SWAPDB", 0, 3)
        assert server.run("DBSIZE") == 1
        async with linked(f"unix://reco:wrong@{server.socket}?db=3") as link:
            with pytest.raises(RedisAway):
                await echo(link, "a")


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://localhost:port"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(InputError, match="RECO_REDIS_URL"):
        RedisLink(url, timeout_s=1.0)


async def test_closing_ends_who_waits(server: RedisServer) -> None:
    async with proxied(server) as proxy, linked(proxy.url) as link:
        proxy.delay_s = PATIENT_S
        asking = [asyncio.create_task(echo(link, "a")) for _ in range(3)]
        await asyncio.sleep(0.01)
        await link.close()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(outcome, RedisAway) for outcome in outcomes)
        with pytest.raises(RedisAway):
            await echo(link, "a")
