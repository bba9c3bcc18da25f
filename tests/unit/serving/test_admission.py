"""Who is let in: the limit on age, how ages are measured, and whose word on them is believed."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import settings_for

from service.api.admission import PRESSED_S, Admission, AgeLimit, age_by_proxy, waited
from service.api.error_handlers import ErrorFamilies
from service.api.problems import render
from service.api.services import RequestIds
from service.errors import InputError
from service.telemetry import Telemetry

BUDGET_S = 0.05


def admission(**changes: Any) -> Admission:
    settings = settings_for(Path(), budget_ms=BUDGET_S * 1000, **changes)
    families = ErrorFamilies()
    families.add("/v1/", render)
    return Admission(settings, Telemetry(budget_s=settings.budget_s), families, RequestIds())


def test_a_lone_burst_is_answered_up_to_the_ceiling() -> None:
    limit = AgeLimit(BUDGET_S)
    for number in range(40):  # for 40 ms every other request has waited long
        assert limit.admits(0.0 if number % 2 else 0.8 * BUDGET_S, 10 + number / 1000)
    assert not limit.admits(0.9 * BUDGET_S, 10.05)


def test_a_queue_that_stands_is_cut_to_the_floor_and_given_back_when_it_has_gone() -> None:
    limit, now = AgeLimit(BUDGET_S), 10.0
    while now < 11:
        limit.admits(0.03, now)
        now += 0.001
    assert limit.seconds == limit.floor == pytest.approx(0.1 * BUDGET_S)
    assert not limit.admits(0.03, now)
    assert limit.admits(0.004, now)
    while now < 13:
        limit.admits(0.001, now)
        now += 0.001
    assert limit.seconds == limit.ceiling


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), max_size=300), st.floats(0.0001, 60))
def test_the_limit_stays_between_its_ends(requests: list[tuple[float, float]], budget_s: float) -> None:
    limit, now = AgeLimit(budget_s), 0.0
    for age, pause in requests:
        now += pause
        admitted = limit.admits(age, now)
        assert limit.floor <= limit.seconds <= limit.ceiling
        assert admitted == (age <= limit.seconds)
        assert not (admitted and age > max(0.8 * budget_s, 0.005))


@pytest.mark.parametrize(
    ("said", "age"),
    [
        (b"t=1000.250", 0.75),
        (b"1000.250", 0.75),
        (b"t=1000", 1.0),
        (b"t=1001.5", 0.0),
        (b"t=900", 0.0),
        (b"t=", 0.0),
        (b"", 0.0),
        (b"t=nan", 0.0),
        (b"t=1e3", 0.0),
        (b"t=-5", 0.0),
        (b"t=1000.2.5", 0.0),
        (b"t=" + b"9" * 400, 0.0),
        (b".", 0.0),
    ],
)
def test_a_proxy_s_time_is_an_age_if_it_can_be_one(said: bytes, age: float) -> None:
    assert age_by_proxy(said, 1001.0) == pytest.approx(age)


def test_milliseconds_and_microseconds_are_known_by_their_size() -> None:
    now = 1_700_000_000.5
    for said in (b"t=1700000000.0", b"t=1700000000000", b"1700000000000000"):
        assert age_by_proxy(said, now) == pytest.approx(0.5)


@given(st.binary(max_size=40))
def test_nothing_that_a_header_can_say_breaks_it(said: bytes) -> None:
    assert 0.0 <= age_by_proxy(said, 1001.0) <= 60.0


@pytest.mark.parametrize(
    ("client", "trusted"),
    [
        (("10.1.2.3", 5), True),
        (("::ffff:10.1.2.3", 5), True),
        (("192.0.2.7", 5), True),
        (("192.0.2.8", 5), False),
        (("11.1.2.3", 5), False),
        (("not an address", 5), False),
        (None, False),
    ],
)
def test_only_named_proxies_are_trusted(client: tuple[str, int] | None, trusted: bool) -> None:
    assert admission(trusted_proxies="10.0.0.0/8, 192.0.2.7").trusts(client) is trusted
    assert not admission().trusts(client)


def test_a_proxy_that_is_no_address_is_refused_at_the_start() -> None:
    with pytest.raises(InputError, match=r"'nginx' is no address and no network"):
        settings_for(Path(), trusted_proxies="nginx")


@contextlib.contextmanager
def bytes_waiting(seconds: float) -> Iterator[socket.socket]:
    """A connection accepted so long after a byte was sent over it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.sendall(b"x")
        busy(seconds)
        served, _ = listener.accept()  # what waits to be accepted ages, too
        with served:
            yield served


def busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when bytes came")
def test_the_kernel_tells_how_long_bytes_have_waited() -> None:
    with bytes_waiting(0.05) as connection:
        assert 0.04 <= waited(connection.fileno()) <= 10
    assert waited(-1) == 0.0
    reader, writer = os.pipe()
    assert waited(reader) == 0.0
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when bytes came")
def test_ages_are_measured_once_work_goes_on_without_a_pause() -> None:
    with bytes_waiting(0.05) as connection:
        descriptor, door = connection.fileno(), admission()
        now = time.perf_counter()
        # The first of a turn, after a pause: nobody can have kept it waiting, so nobody is asked.
        assert door.arrived_at(1, descriptor, None) >= now
        busy(2 * PRESSED_S)
        assert time.perf_counter() - door.arrived_at(1, descriptor, None) >= 0.04
        # That turn was long, so the next one's first has waited as well.
        assert time.perf_counter() - door.arrived_at(2, descriptor, None) >= 0.04
        now = time.perf_counter()
        assert door.arrived_at(3, descriptor, None) >= now


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when bytes came")
def test_what_is_answered_at_once_has_no_age_unless_work_goes_on_and_is_refused_when_too_old() -> None:
    with bytes_waiting(0.08) as connection:
        descriptor, door = connection.fileno(), admission()
        assert door.direct(1, descriptor, None) == 0.0
        busy(2 * PRESSED_S)
        assert door.direct(1, descriptor, None) == -1.0
        assert door._telemetry.shed == {"age": 1}
        assert door.direct(2, descriptor, None) == -1.0
        assert door.direct(3, descriptor, None) == 0.0
        said = b"t=%.3f" % (time.time() - 0.01)
        assert door.direct(4, -1, said) >= 0.009
        assert door.direct(4, -1, b"t=%.3f" % (time.time() - 0.5)) == -1.0


def test_the_older_of_kernel_and_trusted_proxy_counts() -> None:
    door = admission()
    said = b"t=%.3f" % (time.time() - 0.5)
    assert time.perf_counter() - door.arrived_at(1, -1, said) >= 0.49


def test_too_old_and_too_many_are_counted_apart() -> None:
    door = admission(max_in_flight=10)
    now = time.perf_counter()
    assert door.admits(now, 0)
    assert not door.admits(now - 1, 0)
    assert not door.admits(time.perf_counter(), 11)
    assert door.admits(time.perf_counter(), 10)
    assert door._telemetry.shed == {"age": 1, "in_flight": 1}
    door._telemetry.flush()
    assert b'reco_shed_total{reason="age"} 1.0' in door._telemetry.exposition()


def test_a_refusal_speaks_its_family_s_language_and_says_when_to_come_again() -> None:
    door = admission(cors_origins="https://shop")
    headers, body = door.refusal("/reco/als/1", b"mine", b"https://shop")
    found = dict(headers)
    assert found[b"retry-after"] == b"1"
    assert found[b"x-request-id"] == b"mine"
    assert found[b"access-control-allow-origin"] == b"https://shop"
    assert int(found[b"content-length"]) == len(body)
    assert b'"error_key":"overloaded"' in body
    headers, body = door.refusal("/v1/recommend")
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    assert b"urn:reco:problem:overloaded" in body
