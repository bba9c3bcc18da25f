"""Redis killed, frozen, slow, flapping, garbled, or never there: every answer is whole and says what it lacks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from asking import WARM, asked, report
from factories import tiny_dataset, trained_models, write_tiny_bundle
from redis_at import Proxy, RedisServer, proxied, redis_server
from served import Served, served, wait_for

from service.bundle.store import ArtifactStore

HISTORY = "history"


@contextlib.contextmanager
def proxy_of(server: RedisServer) -> Iterator[Proxy]:
    """A proxy on a loop of its own, since the test waits for a service that talks through it."""
    found: list[Proxy] = []
    began, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with proxied(server) as proxy:
            found.append(proxy)
            began.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert began.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def degraded(service: Served) -> bool:
    """Ask as anybody would; every answer is whole, whatever it says of itself."""
    _, _, lacks = asked(service, WARM)
    assert lacks in (None, HISTORY)
    return lacks == HISTORY


def test_what_redis_has_not_taken_is_known_after_a_reload(server: RedisServer, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    ids = [
        write_tiny_bundle(root, dataset=data, models=trained_models(data), publish=seed == 7).name
        for seed, data in ((seed, tiny_dataset(seed=seed)) for seed in (7, 8))
    ]
    env = {
        "RECO_HISTORY": "redis", "RECO_REDIS_URL": server.url, "RECO_EVENTS_DIR": str(tmp_path / "events"),
        "RECO_REDIS_TIMEOUT_MS": "5000",
    }  # fmt: skip
    with served(root, tmp_path, "--workers", "1", env=env) as service:
        item = asked(service, WARM)[0][0]
        server.kill()
        report(service, WARM, item)
        for wanted in (ids[1], ids[0]):
            before = service.counted("reco_reload_total").get('{result="ok"}', 0)
            ArtifactStore(root).publish(wanted)
            wait_for(
                lambda before=before: service.counted("reco_reload_total").get('{result="ok"}', 0) > before,
                "the reload",
            )
            items, _, lacks = asked(service, WARM)
            assert lacks == HISTORY
            assert item not in items
        server.start()
        wait_for(lambda: not degraded(service), "Redis")
        wait_for(known(service, item), "what waited to be saved")


def known(service: Served, item: int) -> Callable[[], bool]:
    return lambda: not degraded(service) and item not in asked(service, WARM)[0]


@pytest.fixture
def server(component: Callable[[str, str], str]) -> Iterator[RedisServer]:
    with redis_server(component) as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with proxy_of(server) as between:
        yield between


@pytest.fixture
def service(artifacts: Path, tmp_path: Path, proxy: Proxy) -> Iterator[Served]:
    env = {
        "RECO_HISTORY": "redis",
        "RECO_REDIS_URL": proxy.url,
        "RECO_EVENTS_DIR": str(tmp_path / "events"),
    }
    with served(artifacts, tmp_path / "run", "--workers", "1", env=env) as running:
        yield running


def freeze(server: RedisServer, proxy: Proxy) -> None:
    server.freeze()


def thaw(server: RedisServer, proxy: Proxy) -> None:
    server.thaw()


def slow(server: RedisServer, proxy: Proxy) -> None:
    proxy.delay_s = 0.05


def fast(server: RedisServer, proxy: Proxy) -> None:
    proxy.delay_s = 0.0


def garble(server: RedisServer, proxy: Proxy) -> None:
    proxy.garbage = b"$5\r\nhello\r\n+OK\r\n*2\r\n:1\r\n"


def speak(server: RedisServer, proxy: Proxy) -> None:
    proxy.garbage = None


def refuse(server: RedisServer, proxy: Proxy) -> None:
    proxy.refusing = True
    proxy.cut()


def admit(server: RedisServer, proxy: Proxy) -> None:
    proxy.refusing = False


def test_every_fault_is_survived_disclosed_and_got_over(
    service: Served, server: RedisServer, proxy: Proxy
) -> None:
    """One service through all of them, as in a bad night; what it acknowledged meanwhile it still knows after."""
    wait_for(lambda: not degraded(service), "the first connection")
    seen: set[int] = set()
    for fail, heal in ((freeze, thaw), (slow, fast), (garble, speak), (refuse, admit)):
        fail(server, proxy)
        wait_for(lambda: degraded(service), f"its disclosure: {fail.__name__}")
        items, _, _ = asked(service, WARM)
        report(service, WARM, items[0])
        seen.add(items[0])
        if degraded(service):
            assert items[0] not in asked(service, WARM)[0]  # known to the process that acknowledged it
        assert httpx.get(f"{service.url}/health/ready").status_code == 200
        heal(server, proxy)
        wait_for(known(service, items[0]), f"its recovery: {fail.__name__}")
        assert seen.isdisjoint(asked(service, WARM)[0])
    wait_for(lambda: server.run("EXISTS", f"reco:history:{WARM}"), "what was acknowledged meanwhile")
    counted = service.counted("reco_history_breaker_opened_total")
    assert sum(counted.values()) >= 4
    assert sum(service.counted("reco_degraded_total").values()) >= 4
    lost = service.counted("reco_history_items_total")
    assert lost.get('{result="lost"}', 0.0) == 0.0


def test_a_killed_server_that_comes_back_empty_is_filled_again(
    service: Served, server: RedisServer, proxy: Proxy
) -> None:
    wait_for(lambda: not degraded(service), "the first connection")
    server.kill()
    wait_for(lambda: degraded(service), "its disclosure")
    items, _, _ = asked(service, WARM)
    report(service, WARM, items[0])
    server.start()
    wait_for(known(service, items[0]), "its recovery")


def test_a_flapping_server_costs_no_answer(service: Served, proxy: Proxy) -> None:
    wait_for(lambda: not degraded(service), "the first connection")
    until = time.monotonic() + 2.0
    outcomes = set()
    while time.monotonic() < until:
        proxy.refusing = not proxy.refusing
        proxy.cut()
        outcomes |= {degraded(service) for _ in range(10)}
    proxy.refusing = False
    assert True in outcomes
    wait_for(lambda: not degraded(service), "its recovery")


def test_it_boots_without_a_server_and_finds_one_that_comes_later(
    artifacts: Path, tmp_path: Path, component: Callable[[str, str], str]
) -> None:
    with redis_server(component, started=False) as server:
        env = {"RECO_HISTORY": "redis", "RECO_REDIS_URL": server.url, "RECO_EVENTS_DIR": str(tmp_path / "e")}
        with served(artifacts, tmp_path / "run", env=env) as service:
            assert degraded(service)
            server.start()
            wait_for(lambda: not any(degraded(service) for _ in range(8)), "every worker's connection")
