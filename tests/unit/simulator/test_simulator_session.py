from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit as reference_expit

from loadtest.simulator.audience import Listener
from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.generator import generate_catalogue
from loadtest.simulator.session import Playback, Session, expit, hundredths

ANGLES = np.deg2rad([0, 60, 60, 90, 180])
FIVE = Catalogue(
    np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float16),
    ["a", "b", "b", "a", "c"],
    ["t"] * 5,
)
"""Inner products with track 0: 1, 1/2, 1/2, 0, -1."""


class Scripted:
    """Hands out what a test wrote down."""

    def __init__(self, choices: Sequence[int], uniforms: Sequence[float]) -> None:
        self._choices, self._uniforms = list(choices), list(uniforms)
        self.asked: list[list[int]] = []

    def choice(self, a: Sequence[int], /) -> Any:
        self.asked.append(list(a))
        return self._choices.pop(0)

    def random(self) -> float:
        return self._uniforms.pop(0)


def test_a_session_opens_with_a_neighbour_of_one_interest_heard_to_its_end() -> None:
    chance = Scripted([0, 2], [])
    listener = Listener(7, (0, 4), interest_neighbours=3)

    session = Session(listener, FIVE, chance)

    assert chance.asked == [[0, 4], [0, 1, 2]]
    assert session.played == [Playback(2, 1.0)]
    assert (session.interest, session.budget, session.over) == (0, 5, False)


def test_times_are_those_of_the_formula() -> None:
    listener = Listener(7, (0,), consume_bias=0.25, consume_sharpness=4.0)
    session = Session(listener, FIVE, Scripted([0, 1], [0.0] * 4))

    # Judged by the interest (track 0), not by the track that opened.
    assert session.listen(2).time == 0.58  # expit((1/2 - 1/4) 4) = .73106, artist b heard once: x .8 = .58485
    assert session.listen(0).time == 0.95  # expit((1 - 1/4) 4) = .95257, artist a not heard
    assert session.listen(3).time == 0.22  # expit((0 - 1/4) 4) = .26894, artist a heard once: x .8 = .21515
    assert session.listen(4).time == 0.01  # expit((-1 - 1/4) 4) = .00669


def test_each_track_of_an_artist_costs_a_fifth_more() -> None:
    same = Catalogue(np.ones((4, 1), np.float16), ["a"] * 4, ["t"] * 4)
    session = Session(Listener(1, (0,), 1.0, 1.0), same, Scripted([0, 0], [0.0] * 3))

    assert [session.listen(track).time for track in (1, 2, 3)] == [0.4, 0.32, 0.26]  # 1/2 x .8, .64, .512


def test_a_track_heard_before_in_the_session_is_left_at_once() -> None:
    session = Session(Listener(1, (0,), 0.0, 100.0), FIVE, Scripted([0, 0], [0.0] * 3))

    assert session.listen(0).time == 0.0
    assert session.listen(1).time == 1.0
    assert session.listen(1).time == 0.0


def test_budget_falls_only_when_a_draw_is_above_the_time() -> None:
    session = Session(
        Listener(1, (0,), 1.0, 1.0, session_budget=2), FIVE, Scripted([0, 4], [0.5, 0.38, 0.39])
    )

    session.listen(0)  # time .5: a draw of .5 is not above it
    assert session.budget == 2
    session.listen(1)  # expit(-1/2) = .37754 -> .38: no fall
    assert session.budget == 2
    session.listen(2)  # .38 x .8 -> .3: .39 is above it
    assert (session.budget, session.over) == (1, False)


def test_a_listener_leaves_when_the_budget_is_spent() -> None:
    session = Session(Listener(1, (0,)), FIVE, Scripted([0, 0], [0.9] * 5))
    offered = 0
    while not session.over:
        session.listen(0)
        offered += 1

    assert offered == 5
    assert session.budget == 0


def test_the_defaults_are_the_courses() -> None:
    listener = Listener(1, (0,))

    assert (listener.consume_bias, listener.consume_sharpness) == (5.0, 1.0)
    assert (listener.session_budget, listener.artist_discount_gamma) == (5, 0.8)
    assert listener.interest_neighbours == 10


@given(st.floats(-800, 800))
def test_expit_is_scipys(x: float) -> None:
    assert expit(x) == pytest.approx(float(reference_expit(x)), rel=1e-14, abs=1e-300)


@given(st.floats(0, 1))
def test_hundredths_are_numpys(x: float) -> None:
    assert hundredths(x) == np.around(x, 2)


@given(st.integers(0, 2**32 - 1))
def test_the_same_seed_and_answers_give_the_same_trajectory(seed: int) -> None:
    catalogue = generate_catalogue(50, 10, 3)
    listener = Listener(1, (3, 4), 0.2, 5.0)

    def trajectory() -> list[Playback]:
        session = Session(listener, catalogue, np.random.default_rng(seed))
        n = 0
        while not session.over:
            session.listen((7 * n) % 50)
            n += 1
        return session.played

    assert trajectory() == trajectory()
