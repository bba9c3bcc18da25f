"""Exploration: every slate is possible, its propensities are exact, and a seed reproduces it."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from factories import tiny_dataset, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Candidates, Deadline, Exploration, ItemFilter, Plan, Query
from service.recommender.exploration import explore
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend

KINDS = [Exploration("epsilon", 0.3), Exploration("softmax", 1.5)]


def pool(scores: list[float]) -> Candidates:
    values = np.array(scores, np.float32)
    return Candidates(np.arange(100, 100 + len(values), dtype=np.int32), values, "personal", filtered=True)


def chance_of_slate(slate: tuple[int, ...], scores: list[float], how: Exploration) -> float:
    """Probability of an ordered slate of row offsets, straight from the definition, place by place."""
    wide = np.array(scores, np.float32).astype(float)
    weights = np.exp((wide - wide.mean()) / wide.std() / how.strength) if wide.std() else np.ones(len(wide))
    left, chance = list(range(len(scores))), 1.0
    for item in slate:
        if how.kind == "softmax":
            chance *= weights[item] / sum(weights[other] for other in left)
        else:
            chance *= how.strength / len(left) + (1 - how.strength) * (item == left[0])
        left.remove(item)
    return chance


strengths = st.floats(0.01, 1.0)
explorations = st.builds(Exploration, st.sampled_from(["epsilon", "softmax"]), strengths)
falling = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30).map(
    lambda scores: sorted(scores, reverse=True)
)


@settings(deadline=None)
@given(falling, st.integers(1, 40), explorations, st.integers(0, 2**64))
def test_a_slate_is_k_different_candidates_with_their_scores(
    scores: list[float], k: int, how: Exploration, seed: int
) -> None:
    candidates = pool(scores)
    rows, values, propensities = explore(candidates, k, how, np.random.default_rng(seed))
    assert len(rows) == len(values) == len(propensities) == min(k, len(scores))
    assert len(set(rows.tolist())) == len(rows)
    assert [scores[row - 100] for row in rows.tolist()] == values.tolist()
    assert all(0 < propensity <= 1 for propensity in propensities)


@settings(deadline=None)
@given(falling, st.integers(1, 40), explorations, st.integers(0, 2**64))
def test_propensities_multiply_to_the_chance_of_the_slate(
    scores: list[float], k: int, how: Exploration, seed: int
) -> None:
    rows, _, propensities = explore(pool(scores), k, how, np.random.default_rng(seed))
    slate = tuple(row - 100 for row in rows.tolist())
    assert math.prod(propensities) == pytest.approx(chance_of_slate(slate, scores, how), rel=1e-6, abs=1e-300)


@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_chances_of_all_slates_sum_to_one_and_come_as_often(how: Exploration, k: int) -> None:
    scores = [3.0, 2.5, 1.0, 0.5]
    slates = list(itertools.permutations(range(len(scores)), k))
    chances = np.array([chance_of_slate(slate, scores, how) for slate in slates])
    assert chances.sum() == pytest.approx(1.0)
    rng = np.random.default_rng(5)
    drawn: Counter[tuple[int, ...]] = Counter()
    said: dict[tuple[int, ...], float] = {}
    for _ in range(8_000):
        rows, _, propensities = explore(pool(scores), k, how, rng)
        slate = tuple(row - 100 for row in rows.tolist())
        drawn[slate] += 1
        said[slate] = math.prod(propensities)
    assert set(drawn) == set(slates)
    assert [said[slate] for slate in slates] == pytest.approx(chances.tolist())
    assert chisquare([drawn[slate] for slate in slates], chances * 8_000).pvalue > 1e-4


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_softmax_is_thompson_sampling_with_gumbel_beliefs(temperature: float) -> None:
    """Draw what each item is worth from its belief, a Gumbel law around its score, and show the best draws in order."""
    scores = [3.0, 2.5, 1.0, 0.5]
    wide = np.array(scores)
    z = (wide - wide.mean()) / wide.std()
    how = Exploration("softmax", temperature)
    slates = list(itertools.permutations(range(len(scores)), 2))
    chances = np.array([chance_of_slate(slate, scores, how) for slate in slates])
    rng, n = np.random.default_rng(3), 40_000

    def drawn(beliefs: npt.NDArray[np.float64]) -> list[int]:
        shown = Counter(map(tuple, np.argsort(-beliefs, axis=1)[:, :2].tolist()))
        return [shown[slate] for slate in slates]

    gumbel = drawn(z + temperature * rng.gumbel(size=(n, 4)))
    assert chisquare(gumbel, chances * n).pvalue > 1e-4
    # Normal beliefs of the same width lead to other chances, which have no closed form.
    normal = drawn(z + temperature * np.pi / np.sqrt(6) * rng.normal(size=(n, 4)))
    assert chisquare(normal, chances * n).pvalue < 1e-4


@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
def test_weighting_by_propensity_undoes_the_choice(how: Exploration) -> None:
    """Inverse propensities estimate how often a uniform slate would start with an item: every item's share is 1/n."""
    scores = [4.0, 2.0, 1.0, 0.0, -1.0]
    weights = np.zeros(len(scores))
    rng = np.random.default_rng(11)
    n = 20_000
    for _ in range(n):
        rows, _, propensities = explore(pool(scores), 1, how, rng)
        weights[rows[0] - 100] += 1 / propensities[0]
    assert weights / n == pytest.approx(np.ones(len(scores)), abs=0.15)


def test_epsilon_one_is_uniform_and_zero_is_greedy() -> None:
    scores = [3.0, 2.0, 1.0]
    rows, _, propensities = explore(pool(scores), 3, Exploration("epsilon", 0.0), np.random.default_rng(0))
    assert (rows.tolist(), propensities) == ([100, 101, 102], (1.0, 1.0, 1.0))
    *_, uniform = explore(pool(scores), 3, Exploration("epsilon", 1.0), np.random.default_rng(0))
    assert uniform == pytest.approx((1 / 3, 1 / 2, 1.0))


def test_softmax_of_equal_scores_is_uniform() -> None:
    *_, propensities = explore(pool([2.0] * 5), 5, Exploration("softmax", 0.1), np.random.default_rng(0))
    assert propensities == pytest.approx((1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0))


def test_softmax_keeps_its_digits_where_plain_sums_lose_them() -> None:
    """The first item outweighs the rest by more than a float can hold; the rest still have odds."""
    scores = [100.0, 0.0, 0.0, 0.0]
    rows, _, propensities = explore(pool(scores), 4, Exploration("softmax", 0.001), np.random.default_rng(0))
    assert rows[0] == 100
    assert propensities == pytest.approx((1.0, 1 / 3, 1 / 2, 1.0))


@settings(deadline=None)
@given(st.integers(0, 2**128), explorations)
def test_the_same_seed_is_the_same_slate(seed: int, how: Exploration) -> None:
    first, second = (
        explore(pool([3.0, 2.0, 1.0, 0.0]), 4, how, np.random.default_rng(seed)) for _ in range(2)
    )
    assert first[0].tolist() == second[0].tolist()
    assert first[2] == second[2]


# -- in the line --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    root = tmp_path_factory.mktemp("explored")
    write_tiny_bundle(root, dataset=tiny_dataset())
    return go_live(load_bundle(ArtifactStore(root).current()))


def test_without_exploration_there_are_no_propensities(live: LiveBundle) -> None:
    slate = recommend(Query(100, 5), Plan("als"), live, Deadline.none())
    assert slate.propensities is None
    assert [stage for stage, _ in slate.timings] == ["retrieve", "complete"]


@pytest.mark.parametrize("model", ["als", "knn", "ease", "lists", "popular"])
@pytest.mark.parametrize("how", KINDS, ids=lambda how: how.kind)
def test_an_explored_slate_is_still_k_unseen_items_of_the_pool(
    live: LiveBundle, model: str, how: Exploration
) -> None:
    user_id, k, n = 103, 5, 12
    best = recommend(Query(user_id, n), Plan(model), live, Deadline.none())
    allowed = set(best.item_ids[: max(best.n_personal, k)])
    plan = Plan(model, n_candidates=n, exploration=how)
    seen_slates = set()
    for seed in range(60):
        slate = recommend(Query(user_id, k, seed=seed), plan, live, Deadline.none())
        assert len(set(slate.item_ids)) == k
        assert slate.propensities is not None
        assert len(slate.propensities) == k
        assert set(slate.item_ids) <= allowed
        again = recommend(Query(user_id, k, seed=seed), plan, live, Deadline.none())
        assert (again.item_ids, again.propensities) == (slate.item_ids, slate.propensities)
        seen_slates.add(tuple(slate.item_ids))
    assert len(seen_slates) > 10


def test_places_that_the_fallback_fills_are_certain(live: LiveBundle) -> None:
    plan = Plan("lists", n_candidates=7, exploration=Exploration("epsilon", 0.5))
    slate = recommend(Query(103, 12, seed=3), plan, live, Deadline.none())
    assert slate.propensities is not None
    assert slate.n_personal == 7
    assert slate.propensities[7:] == (1.0,) * 5
    assert slate.propensities[0] < 1


def test_a_user_without_candidates_leaves_nothing_to_chance(live: LiveBundle) -> None:
    plan = Plan("als", n_candidates=20, exploration=Exploration("softmax", 1.0))
    slate = recommend(Query(9, 5, seed=3), plan, live, Deadline.none())
    assert slate.source == "popular"
    assert slate.propensities == (1.0,) * 5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_filters_hold_for_explored_slates(live: LiveBundle, seed: int, how: Exploration) -> None:
    query = Query(
        103, 4, seed=seed, filter=ItemFilter(attributes={"kind": ("series",)}, deny=frozenset({10}))
    )
    slate = recommend(query, Plan("als", n_candidates=30, exploration=how), live, Deadline.none())
    assert set(slate.item_ids) <= {10 + 2 * row for row in range(0, 40, 10)} - {10}
