"""The chaos commands at a size for every run. What is judged: what becomes of requests. Never how fast."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from loadtest.chaos import life, overload
from loadtest.chaos.reloading import Watch
from loadtest.openloop.connection import Answer, Flight
from loadtest.openloop.shots import Shot
from loadtest.scenario import Request

SIZE = [
    "--rate",
    "100",
    "--items",
    "1000",
    "--users",
    "200",
    "--steady-s",
    "0.5",
    "--pause-s",
    "0",
    "--calm-s",
    "0.2",
]


@pytest.fixture(autouse=True)
def no_loop_left() -> Iterator[None]:
    """`asyncio.Runner` sets no loop: pytest-asyncio's own stays."""
    yield
    asyncio.set_event_loop(None)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["worker-death", "--kills", "1"], {"refused": 0, "kills": 1}),
        (
            ["drain", "--stops", "2", "--restarts", "1"],
            {"lost": 0, "clean_exits": 2, "refused_while_restarting": 0},
        ),
        (["slow-clients", "--clients", "60"], {"failures": 0, "told_408": 60, "dropped": 60}),
        (["reload", "--reloads", "4"], {"failures": 0, "mixed": 0, "bundles_seen": 2, "corrupt": 1}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_promise_is_kept(
    words: list[str], wanted: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    code = life.main([*words, *SIZE])
    said = json.loads(capsys.readouterr().out)
    assert {name: said[name] for name in wanted} == wanted, said
    assert said["answered"] > 0
    if words[0] != "worker-death":  # how soon it recovers is for a machine that does nothing else
        assert code == 0, said


def test_an_overload_is_shed_and_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    overload.main(["--times", "8", "--seconds", "1", "--items", "30000", "--users", "200"])
    said = json.loads(capsys.readouterr().out)
    (one,) = said["results"]
    assert one["shed"] > 0, said
    assert one["lost"] == 0
    assert one["goodput"] > 0


def test_another_body_of_the_same_bundle_and_request_is_a_mixture() -> None:
    watch = Watch()
    shot = Shot(Request("m", 1, cold=False, k=2), b"")
    head = b"HTTP/1.1 200 OK\r\nX-Reco-Bundle: ab12\r\n"
    for bundle, body in ((b"ab12", b"1"), (b"ab12", b"1"), (b"cd34", b"2"), (b"ab12", b"2")):
        watch.observe(Flight(shot, 0.0), Answer(200, head.replace(b"ab12", bundle), body), 0.0)
    watch.observe(Flight(shot, 0.0), Answer(200, head + b"x-reco-degraded: retrieve\r\n", b"3"), 0.0)
    assert watch.mixed == 1
    assert set(watch.bundles) == {"ab12", "cd34"}


def test_recovery_is_from_the_last_slice_that_was_not_full() -> None:
    sent = dict.fromkeys(range(40), 10)
    assert overload.recovery(sent, sent, 10, 40) == 0
    good = {**sent, 12: 3, 17: 8}
    assert overload.recovery(sent, good, 10, 40) == pytest.approx(0.8)
    assert overload.recovery(sent, {**sent, 39: 0}, 10, 40) is None
