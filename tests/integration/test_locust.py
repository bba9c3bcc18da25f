"""Locust, headless, against a real HTTP server whose answers are known."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-this-test"


class Answers:
    """A server of `/reco/{model}/{user_id}`; models other than `good` answer wrongly, each in its own way."""

    def __init__(self) -> None:
        self.users: Counter[str] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Answers:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                status, body = self._answer(head)
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Reco-Source: personal\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, head: str) -> tuple[str, bytes]:
        if f"authorization: bearer {TOKEN}" not in head.lower():
            return "401 Unauthorized", b"{}"
        url = urlsplit(head.split(" ", 2)[1])
        _, _, model, user = url.path.split("/")
        self.users[user] += 1
        k = int(parse_qs(url.query)["k"][0])
        items: Any = {"good": list(range(k)), "short": list(range(k - 1)), "twice": [1] * k}.get(model)
        if items is None:
            return "503 Service Unavailable", b"{}"
        return "200 OK", json.dumps({"user_id": int(user), "items": items}).encode()


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers() as running:
        yield running


def run_locust(locust: str, port: int, *options: str, token: str = TOKEN) -> tuple[int, dict[str, Any], str]:
    command = [
        locust, "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless", "--only-summary",
        "--host", f"http://127.0.0.1:{port}", "--users", "10", "--spawn-rate", "10", "--run-time", "3s", *options,
    ]  # fmt: skip
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RECO_", "LOCUST_"))
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "RECO_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stdout.rstrip().rpartition("\n")[2]
    return done.returncode, json.loads(last) if last else {}, done.stdout + done.stderr


@pytest.fixture
def locust(component: Callable[[str, str], str]) -> str:
    return component("locust", "make setup")


def test_a_right_service_gets_a_clean_report(locust: str, answers: Answers) -> None:
    code, line, shown = run_locust(
        locust,
        answers.port,
        "--models",
        "good",
        "--think",
        "none",
        "--ids",
        "1..50",
        "--cold",
        "0.3",
        "--k",
        "7",
    )
    assert code == 0, shown
    assert line["requests"] > 100
    assert line["failures"] == 0
    assert line["failures_by_reason"] == {}
    assert line["sources"] == {"personal": line["requests"]}
    assert 0 <= line["latency_ms"]["p50"] <= line["latency_ms"]["p99"]
    assert "/reco/good (warm)" in shown
    assert "/reco/good (cold)" in shown
    warm = Counter({int(user): n for user, n in answers.users.items() if int(user) <= 50})
    share_of_cold = 1 - warm.total() / answers.users.total()
    assert share_of_cold == pytest.approx(0.3, abs=0.15)
    assert warm.most_common(1)[0][1] > 3 * warm.total() / 50  # Zipf: the favourite is far above the mean


def test_wrong_answers_are_failures_counted_by_reason(locust: str, answers: Answers) -> None:
    code, line, shown = run_locust(
        locust, answers.port, "--models", "good,short,twice,down", "--think", "none", "--ids", "1..50"
    )
    assert code == 1, shown
    reasons = line["failures_by_reason"]
    assert set(reasons) == {"9 items instead of 10", "an item twice", "status 503"}
    assert sum(reasons.values()) == line["failures"] == line["requests"] - line["sources"]["personal"]


def test_a_wrong_token_fails_every_request(locust: str, answers: Answers) -> None:
    code, line, _ = run_locust(locust, answers.port, "--models", "good", "--think", "none", token="wrong")
    assert code == 1
    assert set(line["failures_by_reason"]) == {"status 401"}
    assert line["failures"] == line["requests"] > 0


def test_thinking_visitors_ask_at_the_pace_of_people(locust: str, answers: Answers) -> None:
    code, line, shown = run_locust(locust, answers.port, "--models", "good")
    assert code == 0, shown
    assert 10 <= line["requests"] <= 70  # 10 visitors for 3 s, at most one request each half second


def test_options_that_make_no_sense_exit_2_with_one_line(locust: str) -> None:
    code, line, shown = run_locust(locust, 9, "--think", "soon")
    assert code == 2
    assert line == {}
    assert "locustfile: think time 'soon': not of the form 0.5..2, 1 or none" in shown
    assert "Traceback" not in shown


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_the_web_page_offers_the_scenario_and_keeps_the_token(locust: str) -> None:
    port = free_port()
    command = [
        locust,
        "-f",
        str(ROOT / "loadtest" / "locustfile.py"),
        "--web-host",
        "127.0.0.1",
        "--web-port",
        str(port),
    ]
    with subprocess.Popen(
        [*command, "--host", "http://127.0.0.1:9"],
        cwd=ROOT,
        env={**os.environ, "RECO_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            page = page_at(f"http://127.0.0.1:{port}/", process)
        finally:
            process.terminate()
    assert all(f'"{option}"' in page for option in ("ids", "zipf", "cold", "think", "models"))
    assert TOKEN not in page


def page_at(url: str, process: subprocess.Popen[bytes]) -> str:
    """Ask until somebody answers."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, timeout=10).text
        except httpx.TransportError:
            assert process.poll() is None, "locust ended before its page was up"
            assert time.monotonic() < give_up
            time.sleep(0.05)
