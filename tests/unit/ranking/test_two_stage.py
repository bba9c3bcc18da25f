"""The ranking stage within the line: what it costs, what is missing and what is skipped, each told apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from factories import FEATURES, tiny_dataset, trained_models, two_stage_model, write_tiny_bundle
from forgery import array_of, forge

from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.domain import Deadline, Plan, Query, Slate
from service.errors import BundleRefused, StageUnavailable
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.ranking.sources import Found
from service.recommender.ranking.warm_up import check_golden
from service.recommender.user_state import UserState

USER = 112
RANKED = Plan("ranked")
SOURCES = ("ease", "als", "knn", "popular")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tiny_dataset()
    models = {**trained_models(data), "ranked": two_stage_model(data)}
    return write_tiny_bundle(
        tmp_path_factory.mktemp("two_stage"), dataset=data, models=models, default_model="ranked"
    )


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bundles" / sound.name
    shutil.copytree(sound, path)
    return path


class _Clock:
    """Time as a seam: it stands still until moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def live(sound: Path) -> LiveBundle:
    return go_live(load_bundle(sound), clock=_Clock())  # what a busy machine costs is not known


class _SlowSource:
    """Takes its time on the clock it is given, or can't run; else answers as the real one does."""

    def __init__(self, live: LiveBundle, name: str, clock: _Clock, seconds: float) -> None:
        ranking = live.models["ranked"].ranking
        assert ranking is not None
        self._gatherer = ranking.gatherer
        self._number = SOURCES.index(name)
        asked = list(self._gatherer.asked)
        self._real = asked[self._number].source
        self._clock, self.seconds, self.broken = clock, seconds, False
        asked[self._number] = asked[self._number]._replace(source=self)
        self._gatherer.asked = tuple(asked)

    def find(self, user: UserState, n: int, rules: Eligible) -> Found | None:
        self._clock.now += self.seconds
        if self.broken:
            raise StageUnavailable("tower")
        return self._real.find(user, n, rules)


def ask(live: LiveBundle, clock: _Clock, budget: float = 0.05, plan: Plan = RANKED) -> Slate:
    return recommend(Query(USER, 8), plan, live, Deadline(budget, clock=clock))


def stages(slate: Slate) -> list[str]:
    return [stage for stage, _ in slate.timings]


def test_a_whole_answer_names_its_stages_and_who_found_each_item(live: LiveBundle) -> None:
    slate = recommend(Query(USER, 40), Plan("ranked"), live, Deadline.none())
    assert stages(slate) == ["retrieve", "rank", "complete"]
    assert slate.degraded == ()
    assert slate.source == "personal"
    assert slate.found_by is not None
    assert all(names and set(names) <= set(SOURCES) for names in slate.found_by[: slate.n_personal])
    assert slate.found_by[slate.n_personal :] == [()] * (len(slate.item_ids) - slate.n_personal)
    assert slate.scores[: slate.n_personal] == sorted(slate.scores[: slate.n_personal], reverse=True)


def test_a_model_of_one_stage_names_nobody(live: LiveBundle) -> None:
    assert recommend(Query(USER, 5), Plan("als"), live, Deadline.none()).found_by is None


def test_a_ranker_too_slow_for_the_budget_is_skipped_and_the_order_of_retrieval_served(
    live: LiveBundle,
) -> None:
    clock = _Clock()
    whole = ask(live, clock)
    live.models["ranked"].rank_cost.upper = 1.0
    slate = ask(live, clock)
    assert slate.degraded == ("rank",)
    assert stages(slate) == ["retrieve", "rank", "complete"]
    first = recommend(Query(USER, 8), Plan("ease"), live, Deadline.none())
    assert slate.item_ids == first.item_ids
    assert slate.source == "personal"
    assert slate.found_by is not None
    assert whole.degraded == ()


def test_a_ranker_that_recovers_is_tried_again(live: LiveBundle) -> None:
    clock = _Clock()
    live.models["ranked"].rank_cost.upper = 1.0
    answers = [ask(live, clock).degraded for _ in range(2000)]
    assert answers[0] == ("rank",)
    assert answers[-1] == ()


def test_a_slow_source_is_left_out_and_named_and_the_others_are_ranked(live: LiveBundle) -> None:
    clock = _Clock()
    slow = _SlowSource(live, "als", clock, 0.5)
    answers = [ask(live, clock) for _ in range(3)]
    late = ("retrieve:knn", "retrieve:popular", "overrun", "rank")  # nothing was known of its cost yet
    assert [slate.degraded for slate in answers[:2]] == [late] * 2
    assert answers[2].degraded == ("retrieve:als",)
    assert answers[2].found_by is not None
    assert not any("als" in names for names in answers[2].found_by)
    assert len(answers[2].item_ids) == 8
    slow.seconds = 0.0
    assert [ask(live, clock).degraded for _ in range(2000)][-1] == ()


def test_a_source_that_can_not_run_is_left_out_and_named(live: LiveBundle) -> None:
    clock = _Clock()
    _SlowSource(live, "knn", clock, 0.0).broken = True
    slate = ask(live, clock)
    assert slate.degraded == ("retrieve:knn",)
    assert slate.source == "personal"


def test_no_time_at_all_is_answered_by_what_is_popular(live: LiveBundle) -> None:
    slate = ask(live, _Clock(), budget=-1.0)
    assert slate.degraded == ("retrieve",)
    assert slate.source == "segment_popular"
    assert slate.found_by is None
    assert len(slate.item_ids) == 8


def test_a_plan_may_leave_stages_out(live: LiveBundle) -> None:
    clock = _Clock()
    unranked = ask(live, clock, plan=Plan("ranked", left_out=("rank",)))
    assert unranked.degraded == ()
    assert unranked.item_ids == recommend(Query(USER, 8), Plan("ease"), live, Deadline.none()).item_ids
    others = ask(live, clock, plan=Plan("ranked", left_out=("retrieve:ease", "retrieve:popular")))
    assert others.degraded == ()
    assert others.found_by is not None
    assert {name for names in others.found_by for name in names} == {"als", "knn"}


# -- what is missing, told apart -------------------------------------------------------------------------------------


def unknown(bundle: Path, role: str, rows: list[int]) -> LiveBundle:
    name = f"ranked/{role}.npy"
    array = array_of(bundle, name)
    array[rows] = np.nan
    return go_live(load_bundle(forge(bundle, {name: array})))


def test_an_unknown_user_is_no_fault_and_gets_what_is_popular(live: LiveBundle) -> None:
    slate = recommend(Query(999_999, 8), Plan("ranked"), live, Deadline.none())
    assert (slate.source, slate.degraded, slate.found_by) == ("popular", (), None)
    assert stages(slate) == ["retrieve", "complete"]


def test_an_anonymous_history_is_ranked_without_user_features_and_no_fault(live: LiveBundle) -> None:
    slate = recommend(Query(None, 8, history=(12, 16, 20)), Plan("ranked"), live, Deadline.none())
    assert (slate.source, slate.degraded) == ("fold_in", ())
    assert "rank" in stages(slate)


def test_a_known_user_without_features_is_ranked_and_disclosed(bundle: Path) -> None:
    live = unknown(bundle, "user_features", [4])
    slate = recommend(Query(USER, 8), Plan("ranked"), live, Deadline.none())
    assert slate.degraded == ("user_features",)
    assert slate.source == "personal"
    assert recommend(Query(100, 8), Plan("ranked"), live, Deadline.none()).degraded == ()


def test_a_candidate_without_features_is_ranked_and_disclosed(live: LiveBundle, bundle: Path) -> None:
    whole = recommend(Query(USER, 40), RANKED, live, Deadline.none())
    pooled = [int(item) for item in whole.item_ids[: whole.n_personal]]
    golden = orjson.loads((bundle / "golden.json").read_bytes())
    golden["ranked"] = {key: answers[:1] for key, answers in golden["ranked"].items()}
    bundle = forge(bundle, {"golden.json": orjson.dumps(golden)})
    promised = golden["ranked"]["item_rows"][0]
    row = next(row for row in ((item - 10) // 2 for item in pooled) if row not in promised)
    slate = recommend(Query(USER, 40), RANKED, unknown(bundle, "item_features", [row]), Deadline.none())
    assert slate.degraded == ("item_features",)
    assert set(slate.item_ids[: slate.n_personal]) == set(pooled)


# -- what must not go live -------------------------------------------------------------------------------------------


def test_other_trees_do_not_answer_the_golden_queries(bundle: Path) -> None:
    values = array_of(bundle, "ranked/tree_value.npy")
    changed = forge(bundle, {"ranked/tree_value.npy": (values * np.float32(1.5)).astype(np.float32)})
    with pytest.raises(BundleRefused, match="'ranked' answers golden query 0 with other scores"):
        go_live(load_bundle(changed))


def test_a_source_that_can_not_run_here_leaves_golden_queries_unproven_and_is_told_in_answers(
    live: LiveBundle,
) -> None:
    ranking = live.models["ranked"].ranking
    assert ranking is not None
    broken = _SlowSource(live, "als", _Clock(), 0.0)
    broken.broken = True
    ranking.exact.asked = ranking.gatherer.asked
    check_golden(live.models["ranked"].data, ranking, live.bundle)
    assert ask(live, _Clock()).degraded == ("retrieve:als",)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda p: p["sources"][0].update(model="dssm"), "sources: no model 'dssm'"),
        (lambda p: p["sources"][0].update(model="ranked"), "of kind two_stage itself"),
        (lambda p: p["sources"][0].update(model="als"), "a name stands twice"),
        (lambda p: p["sources"][0].update(quota=0), "sources.0.quota"),
        (lambda p: p.update(sources=[]), "sources: List should have at least 1"),
        (lambda p: p.update(n_candidates=0), "n_candidates"),
        (lambda p: p.update(depth=3), "depth: Extra inputs"),
        (lambda p: p.update(bias="x"), "bias"),
        (lambda p: p["features"].append(FEATURES[0]), "features: a name stands twice"),
        (lambda p: p["features"].__setitem__(0, "score:dssm"), "no feature 'score:dssm' is made here"),
        (lambda p: p.update(item_features=[]), "'item_features' and parameters.item_features go together"),
        (lambda p: p.pop("user_features"), "'user_features' and parameters.user_features go together"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(
    bundle: Path, edit: Callable[[dict[str, object]], None], reason: str
) -> None:
    changed = forge(bundle, edit=lambda document: edit(document["models"]["ranked"]["parameters"]))
    with pytest.raises(BundleRefused, match=MANIFEST) as refused:
        go_live(load_bundle(changed))
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("tree_feature", lambda a: np.where(a == 0, 6, a).astype(np.int32), "outside -1..5"),
        ("tree_left", lambda a: np.where(a > 0, 0, a).astype(np.int32), "after its node"),
        ("tree_right", lambda a: a[:-1].copy(), "must have shape"),
        ("tree_threshold", lambda a: np.where(a > 0, np.nan, a).astype(np.float32), "not finite"),
        ("tree_value", lambda a: a.astype(np.int32), "must be <f4"),
        ("item_features", lambda a: a[:-1].copy(), "must have shape"),
        ("item_features", lambda a: np.full_like(a, np.inf), "not finite"),
        ("user_features", lambda a: np.hstack((a, a)), "must have shape"),
    ],
)
def test_arrays_that_mean_nothing_are_refused(
    bundle: Path, file: str, change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    name = f"ranked/{file}.npy"
    changed = forge(bundle, {name: change(array_of(bundle, name))})
    with pytest.raises(BundleRefused) as refused:
        load_bundle(changed)
    assert (refused.value.file, reason in refused.value.reason) == (name, True), refused.value.reason


def test_no_golden_queries_is_refused(bundle: Path) -> None:
    golden = orjson.loads((bundle / "golden.json").read_bytes())
    del golden["ranked"]
    with pytest.raises(BundleRefused, match="no golden queries for 'ranked'"):
        load_bundle(forge(bundle, {"golden.json": orjson.dumps(golden)}))
