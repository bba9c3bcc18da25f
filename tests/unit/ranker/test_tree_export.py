"""Trees taken out of a library say what the library says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from models.ranker.config import Config, Library
from models.ranker.rows import Rows
from models.ranker.training import Ranker, fit, mean_contributions, ndcg, telling
from service.recommender.ranking.trees import Forest

FAST = Config(rounds=30, patience=10, least_rows=5, l2=1.0, feature_share=1.0)
LIBRARIES: tuple[Library, ...] = ("lightgbm", "catboost")


def made_rows(seed: int, *, users: int = 60, size: int = 20) -> Rows:
    """Users whose reading follows feature `a`, less so `b` where it is known; `noise` says nothing."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(users * size, 3)).astype(np.float32)
    features[random.random(len(features)) < 0.3, 1] = np.nan
    drive = 2.0 * features[:, 0] + np.nan_to_num(features[:, 1], nan=-1.0)
    labels = (drive + random.normal(size=len(drive)) > 2.0).astype(np.float32)
    labels[::size] = 1.0
    groups = np.full(users, size)
    relevant = labels.reshape(users, size).sum(axis=1).astype(np.int64)
    return Rows(("a", "b", "noise"), features, labels, groups, np.arange(users, dtype=np.int32), relevant)


def said_by_library(ranker: Ranker, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if ranker.library == "lightgbm":
        return np.asarray(ranker.model.predict(features, num_iteration=ranker.rounds, raw_score=True))
    return np.asarray(ranker.model.predict(features))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("gaps_in_training", [True, False])
def test_exported_trees_give_the_librarys_own_scores(library: Library, gaps_in_training: bool) -> None:
    pytest.importorskip(library)
    rows = made_rows(1)
    if not gaps_in_training:
        rows = replace(rows, features=np.nan_to_num(rows.features, nan=-0.5))
    ranker = fit(rows, replace(FAST, library=library), seed=3)
    asked = made_rows(2).features
    asked[0] = np.nan if gaps_in_training or library == "lightgbm" else asked[0]
    if not gaps_in_training and library == "catboost":
        asked = np.nan_to_num(asked, nan=-0.5)  # it refuses a gap where it was trained without any
    thresholds = ranker.trees.threshold[ranker.trees.feature >= 0]
    thresholds = thresholds[np.abs(thresholds) > 1e-30]  # between those, LightGBM takes all for 0
    edges = np.repeat(thresholds[:200, None], 3, axis=1)
    asked = np.concatenate([asked, edges, np.nextafter(edges, np.float32(np.inf))])
    scores = Forest(ranker.trees).scores(np.asfortranarray(asked))
    assert np.abs(scores - said_by_library(ranker, asked)).max() <= 1e-5
    assert ranker.trees.fault(len(rows.names)) is None


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_ranker_finds_what_drives_reading(library: Library) -> None:
    pytest.importorskip(library)
    rows, stop = made_rows(1), made_rows(2)
    ranker = fit(rows, replace(FAST, library=library), seed=0, stop=stop)
    blind = ndcg(np.random.default_rng(0).random(len(stop)), stop).mean()
    assert ranker.score > blind + 0.2
    assert next(iter(mean_contributions(ranker, stop))) == "a"
    assert list(telling(ranker, stop, 1)) == ["a"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_contributions_sum_to_the_score_beside_its_mean(library: Library) -> None:
    pytest.importorskip(library)
    rows = made_rows(1)
    ranker = fit(rows, replace(FAST, library=library), seed=0)
    rest = said_by_library(ranker, rows.features) - ranker.contributions(rows.features).sum(axis=1)
    assert np.allclose(rest, rest[0], atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_equal_seeds_grow_equal_trees(library: Library) -> None:
    pytest.importorskip(library)
    first, again = (fit(made_rows(1), replace(FAST, library=library), seed=5) for _ in range(2))
    for one, other in zip(first.trees.by_role().values(), again.trees.by_role().values(), strict=True):
        assert np.array_equal(one, other)


def test_trees_stop_growing_where_held_out_users_gain_nothing() -> None:
    rows, stop = made_rows(1), made_rows(2)
    shuffled = replace(stop, labels=np.random.default_rng(0).permutation(stop.labels))
    config = replace(FAST, rounds=200, patience=20)
    ranker = fit(rows, config, seed=0, stop=shuffled)
    assert ranker.rounds == len(ranker.trees) < 200
    assert ranker.score == pytest.approx(ndcg(Forest(ranker.trees).scores(stop.features), shuffled).mean())


def test_ndcg_counts_what_the_pool_lacks() -> None:
    rows = Rows(
        ("a",),
        np.array([[3.0], [2.0], [1.0]], np.float32),
        np.array([0.0, 1.0, 0.0], np.float32),
        np.array([3]),
        np.zeros(1, np.int32),
        np.array([2]),
    )
    expected = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert ndcg(rows.features[:, 0].astype(np.float64), rows)[0] == pytest.approx(expected)
