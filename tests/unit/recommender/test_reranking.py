"""Reranking: slates stay whole, caps hold while they can, and near items give way to other ones."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from factories import tiny_dataset, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import AttributeCap, Deadline, Exploration, ItemFilter, Plan, Query, Reranking, Slate
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.reranking import Cap, cosines_of, dpp_greedy, dpp_kernel, mmr, psd

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Candidates, best first, with a group each."""

    relevance: Floats
    cosines: Floats
    groups: npt.NDArray[np.int64]

    def cap(self, most: int) -> Cap:
        return Cap(self.groups[:, None] == np.arange(5), most)

    def order(self, method: str, k: int, cap: Cap | None) -> list[int]:
        if method == "mmr":
            return mmr(self.relevance, self.cosines, k, 0.5, cap)
        return dpp_greedy(dpp_kernel(np.exp(self.relevance - 1), self.cosines), k, 4, cap)


@st.composite
def pools(draw: st.DrawFn, most: int = 16) -> Pool:
    n = draw(st.integers(1, most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = generator.integers(0, 5, n)
    vectors = generator.normal(size=(5, 4))[groups] + draw(
        st.sampled_from([0.0, 0.3, 3.0])
    ) * generator.normal(size=(n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.sort(generator.random(n))[::-1]
    return Pool(relevance, np.clip(vectors @ vectors.T, -1, 1), groups)


methods = st.sampled_from(["mmr", "dpp"])


@settings(deadline=None)
@given(pools(), st.integers(1, 20), methods)
def test_an_order_has_each_candidate_at_most_once(pool: Pool, k: int, method: str) -> None:
    chosen = pool.order(method, k, None)
    assert len(chosen) == len(set(chosen)) == min(k, len(pool.relevance))
    assert set(chosen) <= set(range(len(pool.relevance)))


@settings(deadline=None)
@given(pools(), st.integers(1, 20), st.integers(1, 3), methods)
def test_a_cap_gives_way_only_when_nobody_else_is_left(pool: Pool, k: int, most: int, method: str) -> None:
    chosen = pool.order(method, k, pool.cap(most))
    assert len(chosen) == len(set(chosen)) == min(k, len(pool.relevance))
    taken: Counter[int] = Counter()
    for place, item in enumerate(chosen):
        group = int(pool.groups[item])
        if taken[group] >= most:
            left = set(range(len(pool.groups))) - set(chosen[:place])
            assert all(taken[int(pool.groups[other])] >= most for other in left)
        taken[group] += 1


def test_an_item_counts_for_each_of_its_values_and_none_is_never_held_back() -> None:
    has = np.array([[True, True], [True, False], [False, True], [False, False], [False, False]])
    assert mmr(np.linspace(1, 0, 5), np.eye(5), 5, 1.0, Cap(has, 1)) == [0, 3, 4, 1, 2]


@settings(deadline=None)
@given(pools(), st.integers(1, 20))
def test_mmr_for_relevance_alone_is_the_order_of_relevance(pool: Pool, k: int) -> None:
    assert mmr(pool.relevance, pool.cosines, k, 1.0) == list(range(min(k, len(pool.relevance))))


def test_mmr_weighs_relevance_against_the_nearest_chosen() -> None:
    cosines = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    relevance = np.array([1.0, 0.9, 0.3])
    assert mmr(relevance, cosines, 3, 0.5) == [0, 2, 1]  # .45 - .45 < .15 - .05
    assert mmr(relevance, cosines, 3, 0.9) == [0, 1, 2]  # .81 - .09 > .27 - .01


@settings(deadline=None)
@given(pools(most=7), st.integers(1, 4))
def test_greedy_dpp_takes_what_makes_the_determinant_largest(pool: Pool, k: int) -> None:
    """Against determinants computed outright, as long as they are above rounding."""
    kernel = dpp_kernel(np.exp(pool.relevance - 1), pool.cosines)
    chosen = dpp_greedy(kernel, k)
    for place in range(len(chosen)):
        before = chosen[:place]
        of = {
            item: np.linalg.det(kernel[np.ix_([*before, item], [*before, item])])
            for item in set(range(len(kernel))) - set(before)
        }
        if max(of.values()) < 1e-7:
            break
        assert of[chosen[place]] == pytest.approx(max(of.values()), rel=1e-5)


@settings(deadline=None)
@given(pools(), st.integers(2, 5))
def test_the_window_forgets_all_but_its_last_places(pool: Pool, window: int) -> None:
    gram = np.exp(-(1 - pool.cosines) / 0.5) + np.eye(
        len(pool.cosines)
    )  # well conditioned: never starts anew
    chosen = dpp_greedy(gram, len(gram), window)
    for place in range(len(chosen)):
        seen = chosen[max(0, place - window + 1) : place]
        left = set(range(len(gram))) - set(chosen[:place])
        of = {item: np.linalg.det(gram[np.ix_([*seen, item], [*seen, item])]) for item in left}
        assert of[chosen[place]] == pytest.approx(max(of.values()), rel=1e-9)


def test_alike_items_stand_once_each_before_any_repeats() -> None:
    groups = np.array([0, 0, 0, 1, 1, 2])
    cosines = (groups[:, None] == groups).astype(float)
    chosen = dpp_greedy(cosines, 6)
    assert [groups[item] for item in chosen] == [0, 1, 2, 0, 1, 0]


def test_the_kernel_is_the_formula_where_that_is_a_process() -> None:
    cosines = np.array([[1.0, -0.5], [-0.5, 1.0]])
    expected = 1.55 * 0.5 * np.exp(-1.5 / 1.62)
    assert dpp_kernel(np.array([1.0, 0.5]), cosines) == pytest.approx(
        np.array([[1.0, expected], [expected, 0.25]])
    )


def test_a_kernel_that_is_no_process_is_repaired() -> None:
    """Two alike items: [[1, 1.55], [1.55, 1]] has the eigenvalues 2.55 and -0.55; the second becomes 0."""
    assert dpp_kernel(np.ones(2), np.ones((2, 2))) == pytest.approx(np.full((2, 2), 2.55 / 2))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32))
def test_repair_leaves_no_negative_eigenvalue_and_what_needs_none(n: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    repaired = psd(matrix + matrix.T)
    assert (repaired == repaired.T).all()
    assert np.linalg.eigvalsh(repaired)[0] >= -1e-9
    sound = matrix @ matrix.T + np.eye(n)
    assert (psd(sound) == sound).all()


@settings(deadline=None)
@given(st.integers(0, 2**32), methods)
def test_clustered_candidates_come_out_more_diverse(seed: int, method: str) -> None:
    """The best ten are of one cluster; relevance order shows nothing else."""
    generator = np.random.default_rng(seed)
    centres = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    groups = np.repeat(np.arange(5), 10)
    vectors = centres[groups] + 0.05 * generator.normal(size=(50, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    pool = Pool(np.linspace(1.0, 0.5, 50), cosines, groups)

    def diversity(chosen: list[int]) -> float:
        pairs = list(itertools.combinations(chosen, 2))
        return float(np.mean([1 - cosines[pair] for pair in pairs]))

    assert diversity(pool.order(method, 10, None)) > diversity(list(range(10))) + 0.3


# -- in the line --------------------------------------------------------------------------------------------------

MODELS = ["als", "knn", "ease", "lists", "popular"]
BOTH = [Reranking("mmr", 0.5), Reranking("dpp", 0.5, cap=AttributeCap("kind", 2))]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    root = tmp_path_factory.mktemp("reranked")
    write_tiny_bundle(root, dataset=tiny_dataset())
    return go_live(load_bundle(ArtifactStore(root).current()))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", BOTH, ids=lambda how: how.method)
@pytest.mark.parametrize("k", [1, 5, 25])
def test_a_reranked_slate_is_k_unseen_items_that_may_be_shown(
    live: LiveBundle, model: str, how: Reranking, k: int
) -> None:
    for user_id in (100, 103, 124, 9):
        query = Query(user_id, k, filter=ItemFilter(deny=frozenset({10, 12})))
        plain = recommend(query, Plan(model, 20), live, Deadline.none())
        slate = recommend(query, Plan(model, 20, reranking=how), live, Deadline.none())
        assert len(set(slate.item_ids)) == k
        row = live.bundle.user_ids.row_of(user_id)
        seen = set() if row < 0 else set(live.bundle.item_ids.take(live.bundle.history_of(row)))
        assert not set(slate.item_ids) & (seen | {10, 12})
        assert (slate.source, slate.n_personal, slate.degraded) == (plain.source, plain.n_personal, ())


def test_the_line_reranks_among_the_candidates_by_the_models_own_vectors(live: LiveBundle) -> None:
    best = recommend(Query(103, 20), Plan("als", 20), live, Deadline.none())
    slate = recommend(Query(103, 5), Plan("als", 20, reranking=Reranking("dpp", 0.2)), live, Deadline.none())
    assert set(slate.item_ids) <= set(best.item_ids)
    assert slate.item_ids != best.item_ids[:5]
    assert [best.scores[best.item_ids.index(item)] for item in slate.item_ids] == pytest.approx(slate.scores)
    assert [stage for stage, _ in slate.timings] == ["retrieve", "rerank", "complete"]

    def nearness(items: list[int | str]) -> float:
        rows = live.bundle.item_ids.rows_of(items)
        cosines = cosines_of(rows, live.models["als"], live.bundle)
        return float(cosines[np.triu_indices(len(items), 1)].mean())

    assert nearness(slate.item_ids) < nearness(best.item_ids[:5])


def test_without_vectors_items_are_as_near_as_their_attributes(live: LiveBundle) -> None:
    """Rows 0 and 20: comedy, drama, series; row 1: drama, film."""
    cosines = cosines_of(np.array([0, 20, 1], np.int32), live.models["knn"], live.bundle)
    assert cosines == pytest.approx(
        np.array([[1, 1, 1 / 6**0.5], [1, 1, 1 / 6**0.5], [1 / 6**0.5, 1 / 6**0.5, 1]])
    )


def test_exploration_begins_from_the_reranked_order(live: LiveBundle) -> None:
    how = Reranking("mmr", 0.3)
    certain = Plan("als", 20, exploration=Exploration("epsilon", 0.0), reranking=how)
    greedy = recommend(Query(103, 5), certain, live, Deadline.none())
    assert (
        greedy.item_ids
        == recommend(Query(103, 5), Plan("als", 20, reranking=how), live, Deadline.none()).item_ids
    )
    chance = Plan("als", 20, exploration=Exploration("epsilon", 1.0), reranking=how)
    shown = {
        item
        for seed in range(60)
        for item in recommend(Query(103, 5, seed=seed), chance, live, Deadline.none()).item_ids
    }
    assert shown == set(recommend(Query(103, 20), Plan("als", 20), live, Deadline.none()).item_ids)


def test_a_reranking_that_does_not_fit_is_left_out_and_disclosed(live: LiveBundle) -> None:
    model = live.resolve("als")
    how = Reranking("mmr", 0.31)
    recommend(Query(103, 5), Plan("als", 20, reranking=how), live, Deadline.none())
    model.rerank_costs[how, 20].upper = 10.0

    def ask() -> Slate:
        return recommend(Query(103, 5), Plan("als", 20, reranking=how), live, Deadline(5.0))

    slate = ask()
    assert slate.degraded == ("rerank",)
    assert slate.item_ids == recommend(Query(103, 5), Plan("als", 20), live, Deadline.none()).item_ids
    model.rerank_costs[how, 20].upper = 0.0
    assert ask().degraded == ()
