from __future__ import annotations

import gzip
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loadtest.simulator.audience import draw_audience, read_audience
from loadtest.simulator.days import MS_PER_DAY, Day, turns
from loadtest.simulator.generator import generate_catalogue
from loadtest.simulator.simulation import Target, live

CATALOGUE = generate_catalogue(60, 12, 1)
AUDIENCE = draw_audience(8, 60, 1)


def test_everybody_comes_as_likely_and_every_session_has_one_visitor() -> None:
    mine = turns(Day(1, 8000, 5), 8)
    numbers = sorted(number for of_one in mine.values() for number in of_one)

    assert numbers == list(range(8000))
    assert all(list(of_one) == sorted(of_one) for of_one in mine.values())
    counts = Counter({place: len(of_one) for place, of_one in mine.items()})
    assert min(counts.values()) > 850
    assert max(counts.values()) < 1150


def test_days_and_seeds_differ() -> None:
    visitors = [Day(day, 50, seed).visitors(8) for day in (1, 2) for seed in (0, 1)]

    assert len({tuple(who) for who in visitors}) == 4


def test_who_comes_says_nothing_of_what_the_first_session_draws() -> None:
    # numpy pads seeds with zeros: [seed, day] and [seed, day, 0] would be one stream.
    first = [
        live(Day(day, 1, 3), AUDIENCE, CATALOGUE, Target(agent="random"), concurrency=1)[0].played[0].track
        for day in range(1, 400)
    ]
    who = [Day(day, 1, 3).visitors(8)[0] for day in range(1, 400)]
    same_stream = [int(np.random.default_rng([3, day]).integers(8)) for day in range(1, 400)]

    assert who != same_stream
    assert len(set(first)) > 20


def test_a_simulated_clock_spreads_a_day_and_never_lets_a_listener_be_in_two_sessions() -> None:
    sittings = live(Day(2, 300, 3, first_ms=0), AUDIENCE, CATALOGUE, Target(agent="sticky"), concurrency=3)

    assert min(sitting.at_ms[0] for sitting in sittings) == MS_PER_DAY
    by_user: dict[int, int] = {}
    for sitting in sittings:
        assert list(sitting.at_ms) == sorted(sitting.at_ms)
        assert sitting.at_ms[0] > by_user.get(sitting.user, 0)
        by_user[sitting.user] = sitting.at_ms[-1]


def test_sticky_plays_another_track_of_the_artist_just_heard() -> None:
    sittings = live(Day(1, 50, 3), AUDIENCE, CATALOGUE, Target(agent="sticky"), concurrency=3)
    sizes = Counter(CATALOGUE.artists)

    for sitting in sittings:
        (artist,) = {CATALOGUE.artists[playback.track] for playback in sitting.played}
        tracks = [playback.track for playback in sitting.played]
        assert sizes[artist] == 1 or all(a != b for a, b in itertools.pairwise(tracks))


def test_any_track_is_any_track_and_days_differ() -> None:
    days = [
        live(Day(day, 40, 3), AUDIENCE, CATALOGUE, Target(agent="random"), concurrency=3) for day in (1, 2)
    ]
    heard = [[playback.track for sitting in day for playback in sitting.played[1:]] for day in days]

    assert heard[0] != heard[1]
    assert len(set(heard[0])) > 55


def test_the_published_users_can_be_read(real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_bytes(gzip.decompress((real_data / "botify" / "users.json.gz").read_bytes()))

    people = read_audience(path, 50_000)

    assert len(people) == 10_000
    assert people[0].interests == (44973, 6615, 4773)
    assert people[0].consume_bias == pytest.approx(9.642594)
