"""The choices of botify's recommenders: who can be chosen, how often, and that there is always a way out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from service.recommender.botify.picks import any_of, from_anchor, next_in, other_of, unheard
from service.state.listens import Listen

DRAWS = 6000
SIGNIFICANT = 1e-4
"""Seeds are fixed, so a test either always passes or always fails; this only bounds how lucky a seed may look."""

tracks = st.lists(st.integers(-5, 200), unique=True, max_size=30)
listens = st.lists(st.builds(Listen, st.integers(0, 20), st.floats(allow_nan=False)), max_size=12)


def draws(choose: Callable[[Random], int | None], seed: int = 3) -> Counter[int | None]:
    rng = Random(seed)
    return Counter(choose(rng) for _ in range(DRAWS))


def looks_like(counts: Counter[int | None], shares: dict[int, float]) -> bool:
    """Whether draws fit expected shares (chi-squared); what has no share must not come."""
    if set(counts) - set(shares):
        return False
    observed = [counts[track] for track in shares]
    return float(chisquare(observed, [share * DRAWS for share in shares.values()]).pvalue) > SIGNIFICANT


def test_any_is_uniform() -> None:
    listed = [4, 8, 15, 16, 23, 42]
    assert looks_like(draws(lambda rng: any_of(listed, rng)), dict.fromkeys(listed, 1 / 6))
    assert any_of([], Random(0)) is None


@pytest.mark.parametrize("previous", [1, 3, 5])
def test_another_of_the_artist_is_uniform_over_the_others(previous: int) -> None:
    artist = [1, 2, 3, 4, 5]
    counts = draws(lambda rng: other_of(artist, previous, rng))
    assert looks_like(counts, {track: 1 / 4 for track in artist if track != previous})


def test_an_only_track_is_played_again_and_an_unknown_artist_has_none() -> None:
    assert other_of([9], 9, Random(0)) == 9
    assert other_of([], 9, Random(0)) is None


def test_the_next_in_the_list_goes_round() -> None:
    assert [next_in([7, 8, 9], previous) for previous in (7, 8, 9)] == [8, 9, 7]
    assert next_in([7], 7) == 7
    assert next_in([7, 8, 9], 1) == 8  # as if the first had been played
    assert next_in([], 1) is None


def test_anchors_are_drawn_in_proportion_to_the_time_heard_in_all() -> None:
    heard = [Listen(1, 0.5), Listen(2, 0.9), Listen(1, 0.4), Listen(3, 0.2), Listen(4, 0.0)]
    counts = draws(lambda rng: from_anchor(heard, lambda anchor: [100 + anchor], rng))
    assert looks_like(counts, {101: 0.45, 102: 0.45, 103: 0.1})


def test_the_first_unheard_track_of_the_anchors_list_is_chosen() -> None:
    lists = {1: [2, 1, 3, 4], 2: [1]}
    heard = [Listen(1, 1.0), Listen(2, 1.0)]
    assert draws(lambda rng: from_anchor(heard, lists.__getitem__, rng)) == {3: DRAWS}


@pytest.mark.parametrize(
    "heard",
    [[], [Listen(1, 0.0)], [Listen(1, 0.0), Listen(2, 0.0)], [Listen(1, -3.0)], [Listen(9, 1.0)]],
)
def test_without_an_anchor_that_leads_anywhere_there_is_no_choice(heard: list[Listen]) -> None:
    lists = {1: [5], 2: [6]}
    assert from_anchor(heard, lambda track: lists.get(track, []), Random(0)) is None


@given(heard=listens, lists=st.dictionaries(st.integers(0, 20), tracks), seed=st.integers(0, 99))
def test_what_was_heard_is_never_chosen_from_an_anchor(
    heard: list[Listen], lists: dict[int, list[int]], seed: int
) -> None:
    known = {track for track, _ in heard}
    chosen = from_anchor(heard, lambda track: lists.get(track, []), Random(seed))
    reachable = {
        track
        for listen in heard
        if listen.time > 0
        for track in lists.get(listen.track, [])
        if track not in known
    }
    assert (chosen in reachable) if reachable else (chosen is None)


def test_endless_times_weigh_no_more_than_can_be_summed() -> None:
    heard = [Listen(1, 1e308), Listen(1, 1e308), Listen(2, math.inf)]
    assert from_anchor(heard, lambda anchor: [100 + anchor], Random(0)) in (101, 102)


@pytest.mark.parametrize("n_heard", [0, 3, 9])
def test_an_unheard_track_is_uniform_over_the_rest(n_heard: int) -> None:
    heard = [Listen(10 * row, 1.0) for row in range(n_heard)]
    left = [10 * row for row in range(n_heard, 10)]
    counts = draws(lambda rng: unheard(10, lambda row: 10 * row, heard, rng))
    assert counts == {90: DRAWS} if len(left) == 1 else looks_like(counts, dict.fromkeys(left, 1 / len(left)))


def test_where_all_was_heard_any_track_is_drawn() -> None:
    heard = [Listen(row, 1.0) for row in range(4)]
    assert looks_like(draws(lambda rng: unheard(4, int, heard, rng)), dict.fromkeys(range(4), 1 / 4))
