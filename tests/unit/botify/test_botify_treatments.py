"""Botify's recommenders over a real bundle: what each may play, to whom, and when it has nothing to say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from botify_catalogue import N_TRACKS, TRACKS, artist_of, write_botify_bundle
from pydantic import TypeAdapter
from scipy.stats import chisquare

from service.bundle.reader import load_bundle
from service.domain import Deadline, Query
from service.errors import InputError
from service.recommender.botify.tracks import Tracks, read_tracks
from service.recommender.botify.treatments import Recommender, Treatment, Turn, at_random, bind
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.plan import plan_for
from service.recommender.similar import similar
from service.state.listens import Listen

DRAWS = 4000
WARM, COLD = 100, 5


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    return go_live(load_bundle(write_botify_bundle(tmp_path_factory.mktemp("music"))))


@pytest.fixture(scope="module")
def tracks(live: LiveBundle) -> Tracks:
    return read_tracks(live.bundle)


def made(live: LiveBundle, tracks: Tracks, /, **declared: Any) -> Recommender:
    treatment: Treatment = TypeAdapter(Treatment).validate_python(declared)
    return bind(treatment, live, tracks, Random(5), recommend)


def turn(user_id: int = COLD, *listens: tuple[int, float]) -> Turn:
    heard = tuple(Listen(*one) for one in listens or [(10, 1.0)])
    return Turn(user_id, heard[0], heard, Deadline.none())


def draws(recommender: Recommender, asked: Turn) -> Counter[int | None]:
    return Counter(recommender(asked) for _ in range(DRAWS))


def is_uniform(counts: Counter[int | None], among: list[int]) -> bool:
    return set(counts) <= set(among) and chisquare([counts[one] for one in among]).pvalue > 1e-4


def test_the_catalogue_by_track_artist_and_popularity(tracks: Tracks) -> None:
    assert len(tracks) == N_TRACKS
    assert [tracks.at(row) for row in range(N_TRACKS)] == TRACKS
    for row, track in enumerate(TRACKS):
        assert tracks.artist(row) == (artist_of(track) or "")
        assert tracks.title(row) == f"Title {row}"
        same = (
            [] if artist_of(track) is None else [one for one in TRACKS if artist_of(one) == artist_of(track)]
        )
        assert tracks.of_artist_of(track) == same
    assert tracks.of_artist_of(11) == []
    assert sorted(tracks.popular.tolist()) == list(range(N_TRACKS))


def test_at_random_is_uniform_over_the_catalogue(tracks: Tracks) -> None:
    rng = Random(1)
    assert is_uniform(Counter(at_random(tracks, rng) for _ in range(DRAWS)), TRACKS)


def test_sticky_artist_plays_the_artists_others(live: LiveBundle, tracks: Tracks) -> None:
    sticky = made(live, tracks, recommender="sticky_artist")
    others = [track for track in TRACKS if artist_of(track) == artist_of(14) and track != 14]
    assert is_uniform(draws(sticky, turn(COLD, (14, 0.0))), others)
    assert sticky(turn(COLD, (10, 1.0))) == 10  # the artist's only track
    assert sticky(turn(COLD, (TRACKS[-1], 1.0))) is None  # no artist
    assert sticky(turn(COLD, (11, 1.0))) is None  # no track


def test_a_track_hardly_heard_ends_the_sticking(live: LiveBundle, tracks: Tracks) -> None:
    mixed = made(live, tracks, recommender="sticky_artist_mixed")
    assert mixed(turn(COLD, (10, 0.29))) is None
    assert mixed(turn(COLD, (10, 0.3))) == 10


@pytest.mark.parametrize(("k", "n"), [(1, 1), (10, 10), (1000, N_TRACKS)])
def test_top_pop_is_uniform_over_the_k_most_popular(live: LiveBundle, tracks: Tracks, k: int, n: int) -> None:
    popular = recommend(
        Query(None, N_TRACKS, exclude_seen=False), plan_for("popular", live), live, Deadline.none()
    ).item_ids[:n]
    counts = draws(made(live, tracks, recommender="top_pop", k=k), turn())
    assert counts == {popular[0]: DRAWS} if n == 1 else is_uniform(counts, [int(one) for one in popular])


def stored_list(live: LiveBundle, user_id: int) -> list[int]:
    arrays = live.models["lists"].data.arrays
    row = live.bundle.user_ids.row_of(user_id)
    items = arrays["items"][arrays["indptr"][row] : arrays["indptr"][row + 1]]
    return [TRACKS[item] for item in items.tolist()]


def test_indexed_is_uniform_over_the_users_list(live: LiveBundle, tracks: Tracks) -> None:
    indexed = made(live, tracks, recommender="indexed", model="lists")
    assert len(stored_list(live, WARM)) == 7
    assert is_uniform(draws(indexed, turn(WARM)), stored_list(live, WARM))
    assert is_uniform(
        draws(made(live, tracks, recommender="indexed", model="lists", n=3), turn(WARM)),
        stored_list(live, WARM)[:3],
    )
    assert indexed(turn(COLD)) is None


def test_sequential_walks_the_users_list_round(live: LiveBundle, tracks: Tracks) -> None:
    sequential = made(live, tracks, recommender="sequential", model="lists")
    listed = stored_list(live, WARM)
    walked = [listed[0]]
    for _ in listed:
        following = sequential(turn(WARM, (walked[-1], 1.0)))
        assert following is not None
        walked.append(following)
    assert walked == [*listed, listed[0]]
    assert sequential(turn(WARM, (11, 1.0))) == listed[1]
    assert sequential(turn(COLD)) is None


def test_a_users_list_can_be_made_by_any_model(live: LiveBundle, tracks: Tracks) -> None:
    best = recommend(Query(WARM, 5), plan_for("als", live), live, Deadline.none()).item_ids
    indexed = made(live, tracks, recommender="indexed", model="als", n=5)
    assert is_uniform(draws(indexed, turn(WARM)), [int(one) for one in best])
    assert indexed(turn(COLD)) is None  # what is popular is not the user's


@pytest.mark.parametrize("model", ["contextual", "ease", "als"])
def test_contextual_is_uniform_over_the_previous_tracks_list(
    live: LiveBundle, tracks: Tracks, model: str
) -> None:
    near = [int(item) for item, _ in similar(20, 4, model, live)]
    contextual = made(live, tracks, recommender="contextual", model=model, n=4)
    assert is_uniform(draws(contextual, turn(COLD, (20, 0.0))), near)
    assert contextual(turn(COLD, (11, 1.0))) is None


def test_item_to_item_starts_from_what_was_heard_and_never_repeats_it(
    live: LiveBundle, tracks: Tracks
) -> None:
    i2i = made(live, tracks, recommender="i2i", model="contextual")
    heard = [(20, 0.8), (22, 0.1), (24, 0.0), (20, 0.1)]
    known = {track for track, _ in heard}
    first = {
        anchor: next(
            int(item) for item, _ in similar(anchor, N_TRACKS, "contextual", live) if item not in known
        )
        for anchor in (20, 22)
    }
    counts = draws(i2i, turn(COLD, *heard))
    assert set(counts) == set(first.values())
    assert len(set(first.values())) == 2
    assert chisquare([counts[first[20]], counts[first[22]]], [0.9 * DRAWS, 0.1 * DRAWS]).pvalue > 1e-4


def test_item_to_item_without_an_anchor_draws_among_the_unheard(live: LiveBundle, tracks: Tracks) -> None:
    i2i = made(live, tracks, recommender="i2i", model="contextual")
    heard = [(track, 0.0) for track in TRACKS[:10]]
    assert is_uniform(draws(i2i, turn(COLD, *heard)), TRACKS[10:])


def test_our_own_model_answers_from_the_listens(live: LiveBundle, tracks: Tracks) -> None:
    own = made(live, tracks, recommender="model", model="als")
    liked, disliked = (TRACKS[4], 0.9), (TRACKS[3], 0.1)
    expected = recommend(
        Query(COLD, N_TRACKS, recent=(TRACKS[4],)), plan_for("als", live), live, Deadline.none()
    ).item_ids
    best = next(item for item in expected if item != TRACKS[3])
    assert draws(own, turn(COLD, disliked, liked)) == {best: DRAWS}


def test_our_own_model_plays_nothing_heard_and_one_of_the_best_k(live: LiveBundle, tracks: Tracks) -> None:
    rng = np.random.default_rng(0)
    own = made(live, tracks, recommender="model", model="als", k=3)
    for user in (WARM, COLD):
        for _ in range(50):
            heard = [
                (int(track), float(time))
                for track, time in zip(rng.choice(TRACKS, 6), rng.random(6), strict=True)
            ]
            assert own(turn(user, *heard)) not in {track for track, _ in heard}
    assert len(draws(own, turn(WARM))) == 3


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"recommender": "indexed", "model": "nothing"}, "no model 'nothing'"),
        ({"recommender": "contextual", "model": "popular"}, "no lists by track"),
        ({"recommender": "i2i", "model": "lists"}, "no lists by track"),
        ({"recommender": "model", "model": "nothing"}, "it holds: als,"),
    ],
)
def test_a_treatment_that_the_bundle_has_nothing_for_is_refused(
    live: LiveBundle, tracks: Tracks, declared: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        made(live, tracks, **declared)


def test_sticky_artists_need_artists(tmp_path: Path) -> None:
    live = go_live(load_bundle(write_botify_bundle(tmp_path, artists=False)))
    with pytest.raises(InputError, match="knows no artists"):
        made(live, read_tracks(live.bundle), recommender="sticky_artist")


def test_tracks_are_whole_numbers(tmp_path: Path) -> None:
    live = go_live(load_bundle(write_botify_bundle(tmp_path, ids="str", artists=False)))
    with pytest.raises(InputError, match="whole numbers"):
        read_tracks(live.bundle)
