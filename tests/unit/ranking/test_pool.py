"""A pool holds what several sources found, each item once, with what every source says of it."""

from __future__ import annotations

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.reader import load_bundle
from service.bundle.two_stage import SourceSpec
from service.domain import Deadline, Plan, Query
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.ranking.gather import Gatherer
from service.recommender.ranking.pool import Pool, union
from service.recommender.user_state import UserState

SOURCES = ("ease", "als", "knn", "lists", "popular")
N_ITEMS = 40


@pytest.fixture(scope="module", params=["ip", "l2", "cosine"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    data = tiny_dataset()
    models = trained_models(data, space=request.param)
    return go_live(
        load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("pool"), dataset=data, models=models))
    )


def gatherer_of(live: LiveBundle, quota: int = 12, n: int = 30) -> Gatherer:
    retrievers = {name: model.retriever for name, model in live.models.items()}
    return Gatherer(retrievers, [SourceSpec(model=name, quota=quota) for name in SOURCES], n)


def pool_of(live: LiveBundle, user: UserState, rules: Eligible, quota: int = 12, n: int = 30) -> Pool:
    pool, left_out = gatherer_of(live, quota, n).gather(user, rules)
    assert left_out == ()
    assert pool is not None
    return pool


lists = st.lists(
    st.one_of(st.none(), st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=15, unique=True)),
    min_size=1,
    max_size=6,
).filter(any)


@given(found=lists, most=st.integers(1, 50))
def test_a_union_takes_turns_and_names_each_item_once(found: list[list[int] | None], most: int) -> None:
    expected: list[int] = []
    for turn in range(15):
        for one in found:
            if one is not None and turn < len(one) and one[turn] not in expected:
                expected.append(one[turn])
    expected = expected[:most]
    rows, ranks = union([None if one is None else np.array(one, np.int32) for one in found], most, N_ITEMS)
    assert rows.tolist() == expected
    assert rows.dtype == np.int32
    assert ranks.shape == (len(expected), len(found))
    for column, one in enumerate(found):
        for item, rank in zip(expected, ranks[:, column].tolist(), strict=True):
            assert (one.index(item) == rank) if one is not None and item in one else np.isnan(rank)


@settings(max_examples=60, deadline=None)
@given(
    row=st.integers(0, 54),
    quota=st.integers(1, 20),
    n=st.integers(1, 60),
    allowed=st.one_of(st.none(), st.sets(st.integers(0, N_ITEMS - 1), min_size=1)),
)
def test_a_pool_says_what_each_source_would_say_alone(
    live: LiveBundle, row: int, quota: int, n: int, allowed: set[int] | None
) -> None:
    bundle = live.bundle
    user = UserState(row, bundle.history_of(row), live=False)
    mask = None if allowed is None else np.isin(np.arange(N_ITEMS), list(allowed))
    rules = Eligible(user.history, mask)
    pool, _ = gatherer_of(live, quota, n).gather(user, rules)
    if pool is None:
        assert mask is not None
        return
    rows = pool.item_rows.tolist()
    assert len(set(rows)) == len(rows) <= n
    assert not set(rows) & set(user.history.tolist())
    assert mask is None or mask[rows].all()
    for column, name in enumerate(SOURCES):
        alone = live.models[name].retriever.retrieve(user, N_ITEMS, Eligible(np.empty(0, np.int32), None))
        assert alone is not None
        score_of = dict(zip(alone.item_rows.tolist(), alone.scores.tolist(), strict=True))
        own = [item for item in alone.item_rows.tolist() if item not in user.history.tolist()]
        own = [item for item in own if mask is None or mask[item]]
        if name == "popular":  # lists by the segment, scores by everybody
            score_of = dict(enumerate(live.popular.scores_of_all().tolist()))
        for place, item in enumerate(rows):
            score, rank = float(pool.scores[place, column]), float(pool.ranks[place, column])
            if item in score_of:
                assert score == pytest.approx(score_of[item], rel=1e-4, abs=1e-5)
            else:
                assert np.isnan(score)
            if not np.isnan(rank) and own[int(rank)] != item:  # of equals any may stand there
                assert score_of[own[int(rank)]] == pytest.approx(score_of[item], rel=1e-4, abs=1e-5)
            assert np.isnan(rank) or rank < quota


def test_unranked_the_first_sources_list_leads(live: LiveBundle) -> None:
    user = UserState(4, live.bundle.history_of(4), live=False)
    pool = pool_of(live, user, Eligible(user.history, None))
    found = pool.in_retrieval_order()
    first = live.models["ease"].retriever.retrieve(user, 12, Eligible(user.history, None))
    assert first is not None
    assert found.item_rows[: len(first.item_rows)].tolist() == first.item_rows.tolist()
    assert sorted(found.item_rows.tolist()) == sorted(pool.item_rows.tolist())
    assert (np.diff(found.scores) < 0).all()


def test_found_by_names_the_lists_that_had_an_item(live: LiveBundle) -> None:
    user = UserState(4, live.bundle.history_of(4), live=False)
    pool = pool_of(live, user, Eligible(user.history, None), n=20)
    others = np.setdiff1d(np.arange(N_ITEMS, dtype=np.int32), pool.item_rows)[:2]
    told = pool.found_by(np.concatenate((pool.item_rows[::-1], others)))
    assert told[-2:] == [(), ()]
    for names, place in zip(told[:-2], range(len(pool) - 1, -1, -1), strict=True):
        assert names == tuple(
            name for name, rank in zip(SOURCES, pool.ranks[place], strict=True) if rank >= 0
        )
        assert names


def test_a_user_that_only_popularity_knows_gets_no_pool(live: LiveBundle) -> None:
    for user in (
        UserState(-1, np.empty(0, np.int32), live=False),
        UserState(58, np.empty(0, np.int32), False),
    ):
        assert gatherer_of(live).gather(user, Eligible(user.history, None)) == (None, ())


def test_a_history_alone_fills_a_pool(live: LiveBundle) -> None:
    user = UserState(-1, np.array([1, 3, 5], np.int32), live=True)
    pool = pool_of(live, user, Eligible(user.history, None))
    assert pool.origin == "fold_in"
    assert np.isnan(pool.scores[:, SOURCES.index("lists")]).all()


def test_asking_alone_changes_nothing(live: LiveBundle) -> None:
    before = recommend(Query(109, 10), Plan("knn"), live, Deadline.none())
    user = UserState(3, live.bundle.history_of(3), live=False)
    pool_of(live, user, Eligible(user.history, None))
    assert recommend(Query(109, 10), Plan("knn"), live, Deadline.none()).scores == before.scores
