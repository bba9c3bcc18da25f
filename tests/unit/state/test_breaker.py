"""A breaker waits longer the longer a server fails, never too long, and is ended only by an answer."""

from __future__ import annotations

import random

import pytest

from service.state import redis_link
from service.state.breaker import AT_ONCE_S, FIRST_PAUSE_S, JITTER, LONGEST_PAUSE_S, TOLERATED, Breaker


def after(failures: int) -> Breaker:
    breaker = Breaker(random.Random(failures))
    for _ in range(failures):
        breaker.probing()
        breaker.failed()
    return breaker


def test_it_begins_open() -> None:
    assert Breaker().state == "open"


def test_only_an_answered_probe_closes_it_and_any_failure_opens_it() -> None:
    breaker = after(1)
    states: list[str] = [breaker.state]
    for step in (breaker.probing, breaker.probed, breaker.failed):
        step()
        states.append(breaker.state)
    assert states == ["open", "half_open", "closed", "open"]


@pytest.mark.parametrize("failures", range(1, 40))
def test_pauses_grow_to_a_bound_and_are_spread(failures: int) -> None:
    doublings = failures - TOLERATED
    expected = AT_ONCE_S if doublings < 0 else min(FIRST_PAUSE_S * 2**doublings, LONGEST_PAUSE_S)
    breaker = after(failures)
    pauses = {breaker.pause_s for _ in range(20)}
    assert len(pauses) > 10
    assert all(expected * (1 - JITTER) <= pause <= expected * (1 + JITTER) for pause in pauses)


def test_a_server_that_greets_and_then_hangs_is_waited_for_longer_and_longer() -> None:
    breaker = Breaker()
    for _ in range(TOLERATED + 3):
        breaker.probing()
        breaker.probed()
        breaker.failed()
    assert breaker.pause_s > FIRST_PAUSE_S * 2
    breaker.probed()
    breaker.answered()
    breaker.failed()
    assert breaker.pause_s < FIRST_PAUSE_S


def test_a_server_that_is_back_is_found_within_five_seconds() -> None:
    """A probe that hangs as the server comes back, the longest pause, and the next probe."""
    most_hanging = redis_link.CONNECT_S + 0.01
    assert most_hanging + LONGEST_PAUSE_S * (1 + JITTER) + 0.5 < 5.0
