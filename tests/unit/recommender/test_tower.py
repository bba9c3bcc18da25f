"""Who is answered by a tower, with what, and what happens where it can't run."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset, trained_models
from tower_bundles import HISTORY_LENGTH, tower_model, write_tower_bundle

from service.bundle.reader import Bundle, load_bundle
from service.domain import Deadline, Plan, Query, Slate
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.retrieval import FactorsRetriever
from service.recommender.tower import Tower
from service.recommender.user_state import UserState

KNOWN, TOLD, SILENT = 100, 100 + 3 * 56, 100 + 3 * 57
"""A user with a vector; one of whom only features are known; one of whom nothing is."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    return go_live(load_bundle(write_tower_bundle(tmp_path_factory.mktemp("tower"))))


def answer(live: LiveBundle, user_id: int | None, k: int = 5, **query: Any) -> Slate:
    return recommend(Query(user_id, k, **query), Plan("tower"), live, Deadline.none())


def tower_of(live: LiveBundle) -> Tower:
    retriever = live.models["tower"].retriever
    assert isinstance(retriever, FactorsRetriever)
    assert retriever.users.tower is not None
    return retriever.users.tower


def expected(bundle: Bundle, history: list[int], features: list[float]) -> Any:
    """The vector by numpy, from the arrays the test's model was made of."""
    model = tower_model(tiny_dataset())
    place = np.argsort(model.arrays["item_rows"])
    weights = np.random.default_rng(3)
    weights.normal(0, 1, (bundle.manifest.data.n_items, 6))
    return model.arrays["item_vectors"][place[history]].mean(axis=0) + np.array(features) @ weights.normal(
        0, 2, (2, 6)
    )


def test_a_known_user_is_answered_by_the_trained_vector(live: LiveBundle) -> None:
    assert answer(live, KNOWN).source == "personal"


def test_newer_history_goes_through_the_tower_with_the_users_features(live: LiveBundle) -> None:
    found = tower_of(live).vector(UserState(0, np.array([4, 9], np.int32), live=True))
    assert found is not None
    assert found[1] == "fold_in"
    np.testing.assert_allclose(found[0], expected(live.bundle, [4, 9], [1, 0]), rtol=1e-5)


def test_the_latest_items_count(live: LiveBundle) -> None:
    long = np.arange(HISTORY_LENGTH + 7, dtype=np.int32)
    found = tower_of(live).vector(UserState(-1, long, live=True))
    assert found is not None
    np.testing.assert_allclose(
        found[0], expected(live.bundle, long[-HISTORY_LENGTH:].tolist(), [0, 0]), rtol=1e-5
    )


def test_the_order_of_a_slate_is_that_of_the_towers_vector(live: LiveBundle) -> None:
    slate = answer(live, None, k=8, history=(20, 14))
    model = tower_model(tiny_dataset())
    scores = np.empty(40)
    scores[model.arrays["item_rows"]] = model.arrays["item_vectors"] @ expected(live.bundle, [5, 2], [0, 0])
    best = [int(row) for row in np.argsort(-scores) if row not in (5, 2)][:8]
    assert slate.item_ids == [10 + 2 * row for row in best]
    assert slate.source == "fold_in"


def test_features_alone_are_a_source_of_their_own(live: LiveBundle) -> None:
    slate = answer(live, TOLD)
    assert (slate.source, slate.n_personal, slate.degraded) == ("features", 5, ())


@pytest.mark.parametrize("user", [SILENT, None, 5])
def test_who_nothing_is_known_of_gets_what_is_popular(user: int | None, live: LiveBundle) -> None:
    slate = answer(live, user)
    assert slate.source in ("popular", "segment_popular")
    assert slate.degraded == ()


def test_features_are_left_to_popularity_where_that_was_better(tmp_path: Path) -> None:
    model = tower_model(tiny_dataset(), without_history="popular")
    live = go_live(load_bundle(write_tower_bundle(tmp_path, model)))
    assert answer(live, TOLD).source == "segment_popular"
    assert answer(live, TOLD, history=(12,)).source == "fold_in"


def test_a_tower_of_features_alone_leaves_histories_to_the_mean_of_their_vectors(tmp_path: Path) -> None:
    live = go_live(load_bundle(write_tower_bundle(tmp_path, tower_model(tiny_dataset(), history=False))))
    assert answer(live, TOLD).source == "features"
    assert answer(live, TOLD, history=(12, 14)).source == "fold_in"
    assert answer(live, None, history=(12, 14)).source == "fold_in"


def test_in_a_cosine_space_scores_are_cosines(tmp_path: Path) -> None:
    live = go_live(load_bundle(write_tower_bundle(tmp_path, tower_model(tiny_dataset(), space="cosine"))))
    slate = answer(live, None, k=40, history=(20, 14), exclude_seen=False)
    assert slate.n_personal == 40
    assert -1 - 1e-5 < min(slate.scores) < max(slate.scores) < 1 + 1e-5
    vector = expected(live.bundle, [5, 2], [0, 0])
    item = tower_model(tiny_dataset()).arrays["item_vectors"][39 - (int(slate.item_ids[0]) - 10) // 2]
    cosine = item @ vector / np.linalg.norm(item) / np.linalg.norm(vector)
    assert slate.scores[0] == pytest.approx(cosine, abs=1e-5)


def test_without_the_runtime_only_those_with_a_vector_are_answered_by_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tower_bundle(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    live = go_live(load_bundle(path))
    assert (answer(live, KNOWN).source, answer(live, KNOWN).degraded) == ("personal", ())
    for slate in (answer(live, TOLD), answer(live, KNOWN, history=(12, 14))):
        assert slate.source == "segment_popular"
        assert slate.degraded == ("tower",)
        assert len(slate.item_ids) == 5
    assert answer(live, SILENT).degraded == ()


def test_threads_share_one_tower(live: LiveBundle) -> None:
    tower, wrong = tower_of(live), []

    def ask(item: int) -> None:
        user = UserState(-1, np.array([item], np.int32), live=True)
        right = expected(live.bundle, [item], [0, 0])
        for _ in range(200):
            found = tower.vector(user)
            if found is None or not np.allclose(found[0], right, rtol=1e-4):
                wrong.append(item)

    threads = [threading.Thread(target=ask, args=(item,)) for item in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_other_models_are_served_beside_it(live: LiveBundle) -> None:
    for name in trained_models(tiny_dataset()):
        assert len(recommend(Query(KNOWN, 5), Plan(name), live, Deadline.none()).item_ids) == 5
