"""The request line as one total function: whatever is asked, k eligible, unseen, distinct items come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, two_stage_model, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from tower_bundles import tower_model

from models.content import content
from service.bundle.ids import UNKNOWN
from service.bundle.reader import load_bundle
from service.domain import Candidates, Deadline, ItemFilter, Plan, Query, Slate
from service.errors import InvalidRequest, ModelNotFound
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, LiveModel, go_live
from service.recommender.pipeline import recommend
from service.recommender.user_state import UserState, user_state

MODELS = ["popular", "als", "knn", "ease", "lists", "content", "tower", "ranked", "default"]


@pytest.fixture(scope="module", params=["exact", "hnsw"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    data = tiny_dataset()
    models = {
        **trained_models(data),
        "content": content.train(data, content.Config()),
        "tower": tower_model(data),
        "ranked": two_stage_model(data),
    }
    path = write_tiny_bundle(tmp_path_factory.mktemp("artifacts"), dataset=data, models=models, index="hnsw")
    return go_live(load_bundle(path), retriever=request.param)


user_ids = st.one_of(
    st.none(), st.integers(0, 400), st.integers(34, 93).map(lambda row: 100 + 3 * (row - 34))
)
item_ids = st.integers(0, 100).map(lambda number: 10 + 2 * (number % 45))  # some lie outside the catalogue
filters = st.one_of(
    st.none(),
    st.builds(
        ItemFilter,
        allow=st.one_of(st.none(), st.frozensets(item_ids, max_size=30)),
        deny=st.frozensets(item_ids, max_size=30),
        attributes=st.dictionaries(
            st.sampled_from(["genres", "kind"]),
            st.lists(st.sampled_from(["comedy", "drama", "film", "series", "opera"]), max_size=2).map(tuple),
            max_size=2,
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    user=user_ids,
    k=st.integers(1, 60),
    history=st.one_of(st.none(), st.lists(item_ids, max_size=30).map(tuple)),
    wanted=filters,
    exclude_seen=st.booleans(),
)
def test_any_query_gets_exactly_k_distinct_eligible_unseen_items_while_there_are_k(
    live: LiveBundle,
    model: str,
    user: int | None,
    k: int,
    history: tuple[int, ...] | None,
    wanted: ItemFilter | None,
    exclude_seen: bool,
) -> None:
    slate = recommend(Query(user, k, history, wanted, exclude_seen), Plan(model), live, Deadline.none())
    bundle = live.bundle
    catalogue = bundle.item_ids.take(np.arange(len(bundle.item_ids)))
    row = UNKNOWN if user is None else bundle.user_ids.row_of(user)
    if history is not None:
        seen = set(history)
    else:
        seen = set() if row == UNKNOWN else set(bundle.item_ids.take(bundle.history_of(row)))
    eligible = {item for place, item in enumerate(catalogue) if _lets_through(wanted, item, place)}
    if exclude_seen:
        eligible -= seen
    assert len(slate.item_ids) == min(k, len(eligible))
    assert len(set(slate.item_ids)) == len(slate.item_ids)
    assert set(slate.item_ids) <= eligible
    assert len(slate.scores) == len(slate.sources) == len(slate.item_ids)
    assert slate.degraded == ()


def _lets_through(wanted: ItemFilter | None, item: int, row: int) -> bool:
    if wanted is None:
        return True
    values = {
        "genres": {"drama"} if row % 4 else {"comedy", "drama"},
        "kind": {"film"} if row % 10 else {"series"},
    }
    return (
        (wanted.allow is None or item in wanted.allow)
        and item not in wanted.deny
        and all(values[name] & set(any_of) for name, any_of in wanted.attributes.items())
    )


def test_the_same_query_gets_the_same_slate(live: LiveBundle) -> None:
    for model in MODELS:
        slates = [recommend(Query(109, 12), Plan(model), live, Deadline.none()) for _ in range(3)]
        assert slates[0].item_ids == slates[1].item_ids == slates[2].item_ids
        assert slates[0].scores == slates[1].scores


def test_a_warm_user_gets_items_of_their_own_taste(live: LiveBundle) -> None:
    for model in ("als", "knn", "ease", "ranked"):
        slate = recommend(Query(100 + 3 * 4, 5), Plan(model), live, Deadline.none())
        assert slate.source == "personal"
        assert _tastes(slate) == [0] * 5


def test_a_user_without_events_gets_their_segments_popular_items(live: LiveBundle) -> None:
    slate = recommend(Query(100 + 3 * 58, 5), Plan("als"), live, Deadline.none())
    assert slate.source == "segment_popular"
    assert _tastes(slate) == [0] * 5


def test_an_unknown_user_gets_everybodys_popular_items(live: LiveBundle) -> None:
    for model in MODELS:
        slate = recommend(Query(999_999, 5), Plan(model), live, Deadline.none())
        assert slate.source == "popular"
        assert slate.item_ids == recommend(Query(None, 5), Plan("popular"), live, Deadline.none()).item_ids


def test_a_history_alone_is_folded_in(live: LiveBundle) -> None:
    history = tuple(10 + 2 * row for row in (1, 3, 5))
    for model in ("als", "knn", "ease", "ranked"):
        slate = recommend(Query(None, 5, history), Plan(model), live, Deadline.none())
        assert slate.source == "fold_in"
        assert _tastes(slate) == [1] * 5
        assert not set(history) & set(slate.item_ids)


def test_recent_events_come_on_top_of_what_the_bundle_knows(live: LiveBundle) -> None:
    user = 100 + 3 * 4
    known = set(live.bundle.item_ids.take(live.bundle.history_of(4)))
    before = recommend(Query(user, 5), Plan("als"), live, Deadline.none())
    recent = (before.item_ids[0], 10 + 2 * 1, before.item_ids[0])
    after = recommend(Query(user, 30, recent=recent), Plan("als"), live, Deadline.none())
    assert after.source == "fold_in"
    assert not (known | set(recent)) & set(after.item_ids)
    assert before.item_ids[1] in after.item_ids


def test_a_repeated_item_counts_where_it_came_last(live: LiveBundle) -> None:
    state = user_state(Query(None, 5, history=(10, 12, 14), recent=(10, 999)), live.bundle)
    assert live.bundle.item_ids.take(state.history) == [12, 14, 10]


def test_a_short_list_is_topped_up_and_says_so(live: LiveBundle) -> None:
    slate = recommend(Query(100, 12), Plan("lists"), live, Deadline.none())
    assert (slate.source, slate.n_personal) == ("personal", 7)
    assert slate.sources == ["personal"] * 7 + ["segment_popular"] * 5


def test_a_model_nobody_built_is_an_error_not_a_guess(live: LiveBundle) -> None:
    with pytest.raises(ModelNotFound, match="dssm"):
        recommend(Query(100, 5), Plan("dssm"), live, Deadline.none())


def test_a_filter_on_an_attribute_the_catalogue_lacks_names_those_it_has(live: LiveBundle) -> None:
    with pytest.raises(InvalidRequest, match="genres, kind"):
        recommend(
            Query(100, 5, filter=ItemFilter(attributes={"colour": ("red",)})),
            Plan("als"),
            live,
            Deadline.none(),
        )


def _tastes(slate: Slate) -> list[int]:
    return [(int(item) - 10) // 2 % 2 for item in slate.item_ids]


class _SettableClock:
    """A clock that stands still until moved: time as a seam."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _SlowRetriever:
    """Takes its time on the clock it is given, then answers as the real one does."""

    def __init__(self, real: LiveModel, clock: _SettableClock, seconds: float) -> None:
        self._real, self._clock, self.seconds = real.retriever, clock, seconds

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        self._clock.now += self.seconds
        return self._real.retrieve(user, n, rules)


def _with_slow_als(
    live: LiveBundle, clock: _SettableClock, seconds: float
) -> tuple[LiveBundle, _SlowRetriever]:
    real = live.models["als"]
    slow = _SlowRetriever(real, clock, seconds)
    model = LiveModel(real.name, real.data, slow, type(real.retrieve_cost)(), real.recall_at_10)
    return LiveBundle(live.bundle, {**live.models, "als": model}, live.popular), slow


def test_a_model_too_slow_for_the_budget_is_skipped_and_disclosed(live: LiveBundle) -> None:
    clock = _SettableClock()
    slowed, _ = _with_slow_als(live, clock, 0.5)

    def ask() -> Slate:
        return recommend(Query(112, 5), Plan("als"), slowed, Deadline(0.05, clock=clock))

    assert [ask().degraded for _ in range(2)] == [("overrun",)] * 2  # nothing was known of its cost yet
    third = ask()
    assert third.degraded == ("retrieve",)
    assert third.source == "segment_popular"
    assert len(third.item_ids) == 5


def test_one_hiccup_costs_nobody_else_their_answer(live: LiveBundle) -> None:
    clock = _SettableClock()
    slowed, slow = _with_slow_als(live, clock, 0.001)

    def ask() -> Slate:
        return recommend(Query(112, 5), Plan("als"), slowed, Deadline(0.05, clock=clock))

    for _ in range(10):
        ask()
    slow.seconds = 1.0
    assert ask().degraded == ("overrun",)
    slow.seconds = 0.001
    assert [ask().degraded for _ in range(20)] == [()] * 20


def test_a_model_that_recovers_is_tried_again_and_stays(live: LiveBundle) -> None:
    clock = _SettableClock()
    slowed, slow = _with_slow_als(live, clock, 0.5)
    for _ in range(5):
        recommend(Query(112, 5), Plan("als"), slowed, Deadline(0.05, clock=clock))
    slow.seconds = 0.001
    answers = [
        recommend(Query(112, 5), Plan("als"), slowed, Deadline(0.05, clock=clock)) for _ in range(3000)
    ]
    assert answers[-1].degraded == ()
    assert answers[-1].source == "personal"


def test_a_persistently_slow_model_overruns_in_fewer_than_one_request_in_a_hundred(live: LiveBundle) -> None:
    clock = _SettableClock()
    slowed, _ = _with_slow_als(live, clock, 0.2)
    answers = [
        recommend(Query(112, 5), Plan("als"), slowed, Deadline(0.05, clock=clock)) for _ in range(5000)
    ]
    assert sum(slate.degraded == ("overrun",) for slate in answers) < 50
    assert all(len(slate.item_ids) == 5 for slate in answers)


def test_spaces_agree_with_brute_force_through_the_whole_line(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    for space in ("ip", "cosine", "l2"):
        models = trained_models(dataset, space=space)
        live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=dataset, models=models)))
        items, users = (
            models["als"].arrays[role].astype(np.float64) for role in ("item_vectors", "user_vectors")
        )
        for user in (0, 7, 20):
            if space == "l2":
                scores = -((items - users[user]) ** 2).sum(axis=1)
            else:
                scores = items @ users[user] / (np.linalg.norm(items, axis=1) if space == "cosine" else 1.0)
            scores[live.bundle.history_of(user)] = -np.inf
            expected = live.bundle.item_ids.take(np.argsort(-scores)[:10])
            slate = recommend(Query(100 + 3 * user, 10), Plan("als"), live, Deadline.none())
            assert slate.item_ids == expected
