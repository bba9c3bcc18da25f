"""A share of places for items that nobody has had: exact propensities, only what the query lets through."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from scipy.stats import chisquare

from service.bundle.reader import load_bundle
from service.domain import Candidates, Deadline, Exploration, ItemFilter, Plan, Query
from service.policy.experiments_file import ExplorationTable
from service.recommender.exploration import explored
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend

HALF = Exploration("newcomers", 0.5)
NEW = np.array([2, 7, 8], np.int32)
POOL = Candidates(
    np.array([4, 7, 5, 6], np.int32), np.array([4, 3, 2, 1], np.float32), "personal", filtered=True
)


def drawn(seed: int, k: int = 2) -> tuple[tuple[int, ...], tuple[float, ...]]:
    found, propensities = explored(POOL, Query(None, k, seed=seed), Plan("als", exploration=HALF), HALF, NEW)
    assert found is not None
    return tuple(found.item_rows.tolist()), propensities


def chance_by_definition(slate: tuple[int, ...], share: float = 0.5) -> float:
    best, new, chance = POOL.item_rows.tolist(), NEW.tolist(), 1.0
    for item in slate:
        odds = share if new else 0.0
        chance *= (1 - odds) * (item == best[0]) + (odds / len(new) if item in new else 0.0)
        best, new = ([other for other in row if other != item] for row in (best, new))
    return chance


def test_the_product_of_propensities_is_the_chance_of_the_slate() -> None:
    for seed in range(200):
        slate, propensities = drawn(seed, k=4)
        assert len(set(slate)) == 4
        assert np.prod(propensities) == pytest.approx(chance_by_definition(slate))


def test_the_chances_of_all_slates_add_up_to_one() -> None:
    rows = {*POOL.item_rows.tolist(), *NEW.tolist()}
    assert sum(map(chance_by_definition, itertools.permutations(rows, 2))) == pytest.approx(1)


def test_slates_come_as_often_as_their_propensities_say() -> None:
    n = 6000
    counts = Counter(drawn(seed)[0] for seed in range(n))
    expected = {slate: n * chance_by_definition(slate) for slate in counts}
    assert sum(expected.values()) == pytest.approx(n)
    assert chisquare(list(counts.values()), list(expected.values())).pvalue > 1e-4


def test_a_seed_reproduces_a_slate() -> None:
    assert drawn(5) == drawn(5)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    data = tiny_dataset()
    data = data.select(~np.isin(data.item_rows, (30, 33, 36)))
    path = write_tiny_bundle(
        tmp_path_factory.mktemp("new"), dataset=data, models=trained_models(data), index="none"
    )
    return go_live(load_bundle(path))


def test_newcomers_are_the_items_without_events(live: LiveBundle) -> None:
    had = set(live.bundle.history_items.tolist())
    assert {30, 33, 36} <= set(live.newcomers.tolist())
    assert set(live.newcomers.tolist()) | had == set(range(len(live.bundle.item_ids)))
    assert not had & set(live.newcomers.tolist())


def test_a_share_of_places_is_theirs_and_the_rest_stays_the_models(live: LiveBundle) -> None:
    plan = Plan("knn", n_candidates=10, exploration=Exploration("newcomers", 0.3))
    new = set(live.bundle.item_ids.take(live.newcomers))
    shown, places = 0, 0
    for seed in range(300):
        slate = recommend(Query(100, 5, seed=seed), plan, live, Deadline.none())
        assert slate.propensities is not None
        assert all(0 < p <= 1 for p in slate.propensities)
        shown += sum(item in new for item in slate.item_ids)
        places += len(slate.item_ids)
    assert shown / places == pytest.approx(0.3, abs=0.06)


def test_only_newcomers_that_the_query_lets_through_are_shown(live: LiveBundle) -> None:
    plan = Plan("knn", n_candidates=10, exploration=Exploration("newcomers", 1.0))
    allowed = frozenset(live.bundle.item_ids.take(np.array([30, 0, 2, 4, 6, 8, 10])))
    for seed in range(30):
        query = Query(None, 3, history=(14,), seed=seed, filter=ItemFilter(allow=allowed))
        slate = recommend(query, plan, live, Deadline.none())
        assert set(slate.item_ids) <= allowed
        assert slate.item_ids[0] == live.bundle.item_ids.take(np.array([30]))[0]


def test_a_bundle_without_events_has_no_newcomers(tmp_path: Path) -> None:
    data = tiny_dataset().select(np.zeros(0, np.int64))
    models = trained_models(tiny_dataset())
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=data, models=models, index="none")))
    assert len(live.newcomers) == 0


def test_an_experiment_names_the_share() -> None:
    table = ExplorationTable(kind="newcomers", share=0.1)
    assert table.settings() == Exploration("newcomers", 0.1)
    for wrong in ({"epsilon": 0.1}, {"share": 1.5}, {}, {"share": 0.1, "epsilon": 0.1}):
        with pytest.raises(ValueError, match=r"share|less than"):
            ExplorationTable(kind="newcomers", **wrong)
