"""Each feature is what its name says, worked out again one candidate at a time from the models' own arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from service.bundle.reader import load_bundle
from service.bundle.two_stage import SourceSpec
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.ranking.features import FeatureMaker, FeatureSettings, Static
from service.recommender.ranking.gather import Gatherer
from service.recommender.ranking.pool import Pool
from service.recommender.user_state import UserState

SOURCES = ("als", "knn", "ease", "popular")
N_ITEMS, N_USERS = 40, 60
DRAWN = np.random.default_rng(1).normal(size=(N_ITEMS, 3)).astype(np.float32)
DRAWN[7] = np.nan
ITEMS = Static(("count", "age", "log_place"), DRAWN)
USERS = Static(("events",), np.arange(N_USERS, dtype=np.float32)[:, None])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    data = tiny_dataset()
    root = tmp_path_factory.mktemp("features")
    return go_live(load_bundle(write_tiny_bundle(root, dataset=data, models=trained_models(data))))


def made(
    live: LiveBundle, user: UserState, names: tuple[str, ...] | None = None
) -> tuple[Pool, tuple[str, ...], np.ndarray]:
    retrievers = {name: model.retriever for name, model in live.models.items()}
    pool, _ = Gatherer(retrievers, [SourceSpec(model=name, quota=15) for name in SOURCES], 40).gather(
        user, Eligible(user.history, None)
    )
    assert pool is not None
    maker = FeatureMaker(live.bundle, retrievers, FeatureSettings(SOURCES, names, ITEMS, USERS))
    features = maker.of(user, pool)
    assert features.shape == (len(pool), len(maker.names))
    assert features.dtype == np.float32
    return pool, maker.names, features


@pytest.fixture(params=["known", "anonymous", "one item", "unknown items"])
def user(request: pytest.FixtureRequest, live: LiveBundle) -> UserState:
    match request.param:
        case "known":
            return UserState(4, live.bundle.history_of(4), live=False)
        case "anonymous":
            return UserState(-1, np.array([1, 7, 3, 5, 11, 13, 2, 9, 15, 17, 19, 21], np.int32), live=True)
        case "one item":
            return UserState(-1, np.array([6], np.int32), live=True)
        case _:
            return UserState(7, np.array([39, 38], np.int32), live=True)


def known_mean(numbers: np.ndarray) -> float:
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else math.nan


def test_a_feature_is_what_its_name_says(live: LiveBundle, user: UserState) -> None:
    pool, names, features = made(live, user)
    knn, ease, als = (live.models[name].data.arrays for name in ("knn", "ease", "als"))
    between = {"ease": np.asarray(ease["dense"]), "knn": np.zeros((N_ITEMS, N_ITEMS), np.float32)}
    for row in range(N_ITEMS):
        span = slice(int(knn["indptr"][row]), int(knn["indptr"][row + 1]))
        between["knn"][row, knn["indices"][span]] = knn["weights"][span]
    vectors = {int(row): vector for row, vector in zip(als["item_rows"], als["item_vectors"], strict=True)}
    values = {
        name: [
            {
                attribute.values[code]
                for code in attribute.codes[attribute.indptr[row] : attribute.indptr[row + 1]]
            }
            for row in range(N_ITEMS)
        ]
        for name, attribute in live.bundle.attributes.items()
    }
    history = user.history.tolist()
    newest = history[::-1]
    for place, item in enumerate(pool.item_rows.tolist()):
        expected: dict[str, float] = {
            "history_length": len(history),
            "sources": int((~np.isnan(pool.ranks[place])).sum()),
            "best_rank": float(np.nanmin(pool.ranks[place])),
            "item:count": float(DRAWN[item, 0]),
            "item:age": float(DRAWN[item, 1]),
            "item:log_place": float(DRAWN[item, 2]),
            "ahead": float(DRAWN[item, 2]) - math.log1p(len(history)),
            "agreement": sum(1 / (61 + float(rank)) for rank in pool.ranks[place] if not math.isnan(rank)),
            "rows:last1": item - newest[0],
            "rows:mean5": float(np.mean([item - one for one in newest[:5]])),
            "rows:nearest5": min(abs(item - one) for one in newest[:5]),
            "rows:nearest20": min(abs(item - one) for one in newest[:20]),
            "rows:nearest": min(abs(item - one) for one in history),
            "user:events": float(user.row) if user.row >= 0 else math.nan,
        }
        for column, name in enumerate(SOURCES):
            scores = pool.scores[:, column]
            width = float(np.nanmax(scores) - np.nanmin(scores))
            expected[f"score:{name}"] = float(scores[place])
            expected[f"rank:{name}"] = float(pool.ranks[place, column])
            expected[f"scaled:{name}"] = float((scores[place] - np.nanmin(scores)) / (width or 1.0))
        for name, matrix in between.items():
            told = [float(matrix[one, item]) for one in newest[:10]]
            for last in (1, 2, 3, 5, 10):
                expected[f"near:{name}:last{last}"] = sum(told[:last])
            expected[f"near:{name}:max"] = max(told)
            expected[f"near:{name}:least3"] = min(told[:3])
            expected[f"near:{name}:count"] = sum(one > 0 for one in told)
        expected |= {
            f"versus{last}:{name}": float(DRAWN[item, column]) - known_mean(DRAWN[newest[:last], column])
            for last in (1, 5, 20)
            for column, name in enumerate(ITEMS.names)
        }
        cosines = [
            float(vectors[one] @ vectors[item])
            / float(np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[item]))
            for one in newest[:10]
        ]
        expected["cosine:als:last1"] = cosines[0]
        expected["cosine:als:last3"] = float(np.mean(cosines[:3]))
        expected["cosine:als:mean"] = float(np.mean(cosines))
        expected["cosine:als:max"] = max(cosines)
        for name, has in values.items():
            ages = {one: age for age, one in enumerate(newest)}
            for kind, weight in (
                ("taste", lambda _: 1.0),
                ("taste_recent", lambda one, ages=ages: 2.0 ** (-ages[one] / 10)),
                ("taste_last5", lambda one, ages=ages: float(ages[one] < 5)),
            ):
                total = sum(weight(one) * len(has[one]) for one in history)
                shared = sum(weight(one) * len(has[one] & has[item]) for one in history)
                expected[f"{kind}:{name}"] = shared / (total or 1.0)
        assert expected.keys() == set(names)
        for name, value in expected.items():
            got = float(features[place, names.index(name)])
            assert got == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), (name, item)


def test_features_wanted_come_in_their_order_and_are_the_same(live: LiveBundle, user: UserState) -> None:
    _, names, every = made(live, user)
    wanted = tuple(np.random.default_rng(2).permutation(names)[:9].tolist())
    _, given, some = made(live, user, wanted)
    assert given == wanted
    np.testing.assert_array_equal(some, every[:, [names.index(name) for name in wanted]])


def test_names_are_unique_and_an_unknown_one_is_refused(live: LiveBundle, user: UserState) -> None:
    _, names, _ = made(live, user)
    assert len(set(names)) == len(names)
    with pytest.raises(KeyError, match="score:dssm"):
        made(live, user, ("score:dssm",))


def test_making_features_changes_nothing_it_reads(live: LiveBundle, user: UserState) -> None:
    before = DRAWN.copy()
    pool, _, first = made(live, user)
    ranks, scores = pool.ranks.copy(), pool.scores.copy()
    retrievers = {name: model.retriever for name, model in live.models.items()}
    again = FeatureMaker(live.bundle, retrievers, FeatureSettings(SOURCES, None, ITEMS, USERS)).of(user, pool)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(pool.ranks, ranks)
    np.testing.assert_array_equal(pool.scores, scores)
    np.testing.assert_array_equal(before, DRAWN)
