"""The shared stream holds what the log wrote, survives Redis' absences, and never makes the log wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from events_at import feedback, ids_in, impression
from redis_at import RedisServer, redis_server
from running import wait_until

from service.errors import InputError
from service.events import bus as event_bus
from service.events.bus import FIELD, STREAM, EventBus
from service.events.log import AppendResult, EventLog
from service.events.metrics import EventCounts
from service.events.open import check_events
from service.settings import Settings, load_settings
from service.state.redis_link import RedisLink
from service.telemetry import Telemetry

PATIENCE_S = 20.0


@pytest.fixture
def server(component: Callable[[str, str], str]) -> Iterator[RedisServer]:
    with redis_server(component) as running:
        yield running


def log_to(folder: Path, server: RedisServer, *, length: int = 1000) -> EventLog:
    counts = EventCounts(Telemetry(budget_s=0.05))
    bus = EventBus(RedisLink(server.url, timeout_s=0.2), counts, length=length)
    return EventLog(folder, counts, bus=bus)


def entries(server: RedisServer) -> list[dict[str, object]]:
    return [orjson.loads(fields[FIELD]) for _, fields in server.run("XRANGE", STREAM, "-", "+")]


def names(server: RedisServer) -> list[object]:
    return [record["event_id"] for record in entries(server)]


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def test_the_stream_holds_the_records_of_the_log_in_its_order(
    tmp_path: Path, server: RedisServer
) -> None:
    log = log_to(tmp_path, server)
    log.start()
    await log.append([feedback("a"), feedback("b"), feedback("a")])
    log.emit(impression("r"))
    await until(lambda: len(entries(server)) == 3)
    await log.append([feedback("b"), feedback("c")])
    await log.close()
    assert names(server) == ["a", "b", "r", "c"] == ids_in(tmp_path)
    assert (log._counts.published, log._counts.unpublished) == (4, 0)


async def test_what_waits_is_added_before_the_end(tmp_path: Path, server: RedisServer) -> None:
    log = log_to(tmp_path, server, length=10_000)
    log.start()
    for number in range(2000):
        log.emit(impression(str(number)))
    await log.close()
    assert sorted(map(str, names(server)), key=int) == [str(number) for number in range(2000)]


async def test_without_redis_events_are_acknowledged_and_told_when_it_is_back(
    tmp_path: Path, server: RedisServer
) -> None:
    log = log_to(tmp_path, server)
    log.start()
    await log.append([feedback("before")])
    await until(lambda: names(server) == ["before"])
    server.kill()
    for number in range(5):
        assert await log.append([feedback(str(number))]) == AppendResult(1, 0)
    server.start()
    await until(lambda: set(names(server)) == {"0", "1", "2", "3", "4"})
    await log.close()
    assert log._counts.unpublished == 0


async def test_redis_that_hangs_costs_the_log_nothing(tmp_path: Path, server: RedisServer) -> None:
    log = log_to(tmp_path, server)
    log.start()
    await log.append([feedback("before")])
    await until(lambda: names(server) == ["before"])
    server.freeze()
    async with asyncio.timeout(PATIENCE_S):
        for number in range(20):
            assert await log.append([feedback(str(number))]) == AppendResult(1, 0)
    server.thaw()
    await until(lambda: set(names(server)) == {"before", *map(str, range(20))})
    await log.close()


async def test_the_oldest_make_room_and_are_counted(
    tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_bus, "MAX_WAITING", 10)
    server.kill()
    log = log_to(tmp_path, server)
    log.start()
    await log.append([feedback(str(number)) for number in range(25)])
    await until(lambda: log._counts.unpublished == 15)
    server.start()
    await until(lambda: len(entries(server)) == 10)
    await log.close()
    assert names(server) == [str(number) for number in range(15, 25)]


async def test_a_server_that_never_comes_does_not_hold_up_the_end(
    tmp_path: Path, server: RedisServer
) -> None:
    server.kill()
    log = log_to(tmp_path, server)
    log.start()
    await log.append([feedback("a")])
    async with asyncio.timeout(PATIENCE_S):
        await log.close()
    assert (log._counts.published, log._counts.unpublished) == (0, 1)
    assert ids_in(tmp_path) == ["a"]


async def test_a_name_that_holds_something_else_is_counted_and_left_alone(
    tmp_path: Path, server: RedisServer
) -> None:
    server.run("SET", STREAM, "mine")
    log = log_to(tmp_path, server)
    log.start()
    await log.append([feedback("a")])
    await until(lambda: log._counts.unpublished == 1)
    await log.close()
    assert server.run("GET", STREAM) == b"mine"


async def test_the_stream_is_bounded(tmp_path: Path, server: RedisServer) -> None:
    log = log_to(tmp_path, server, length=100)
    log.start()
    for number in range(3000):
        log.emit(impression(str(number)))
    await log.close()
    assert 100 <= len(entries(server)) < 400  # Redis cuts by whole nodes


def settings(folder: Path, url: str) -> Settings:
    return load_settings(
        {
            "artifacts": folder,
            "tokens": "a:kq7Zr1vWn3xT9bLs5hYd",
            "events_dir": folder,
            "events_redis_url": url,
        },
        env_file=None,
    )


def test_a_url_that_is_none_is_told_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^RECO_EVENTS_REDIS_URL: not a URL"):
        check_events(settings(tmp_path, "http://nowhere"))
    check_events(settings(tmp_path, "redis://127.0.0.1:1/0"))
