"""What an explanation says adds up to the score that the line gives, for every kind of model and user."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from models.als import als
from service.bundle.reader import load_bundle
from service.domain import Deadline, ItemFilter, Plan, Query
from service.errors import ItemNotFound, ModelNotFound
from service.recommender.explanation import explain
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend

ITEMS = [10 + 2 * row for row in range(40)]
SUMMED = ("als", "decayed", "trained", "cosine", "l2", "knn", "recent", "ease")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    dataset = tiny_dataset()
    models = trained_models(dataset)
    for space in ("cosine", "l2"):
        other = trained_models(dataset, space=space)["als"]
        arrays = dict(other.arrays)
        if space == "cosine":
            for role in ("item_vectors", "user_vectors"):
                arrays[role] = arrays[role] / np.linalg.norm(arrays[role], axis=1, keepdims=True)
        models[space] = dataclasses.replace(other, arrays=arrays)
    models["trained"] = als.train(dataset, als.Config(factors=6, iterations=4), seed=1)
    models["decayed"] = als.train(dataset, als.Config(factors=6, iterations=4, half_life=3.0), seed=1)
    models["recent"] = dataclasses.replace(models["knn"], parameters={"history_half_life": 2.0})
    return go_live(
        load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("live"), dataset=dataset, models=models))
    )


def score_of(live: LiveBundle, query: Query, item: int, model: str) -> float | None:
    """The line's score of one item, None where the model doesn't give it one."""
    asked = dataclasses.replace(query, k=1, filter=ItemFilter(allow=frozenset({item})), exclude_seen=False)
    slate = recommend(asked, Plan(model), live, Deadline.none())
    return slate.scores[0] if slate.source in {"personal", "fold_in"} and slate.n_personal else None


queries = st.one_of(
    st.sampled_from(range(100, 280, 3)).map(lambda user: Query(user, 1)),
    st.lists(st.sampled_from(ITEMS), max_size=12, unique=True).map(
        lambda history: Query(None, 1, history=tuple(history))
    ),
    st.tuples(st.sampled_from(range(100, 280, 3)), st.lists(st.sampled_from(ITEMS), max_size=4)).map(
        lambda known: Query(known[0], 1, recent=tuple(known[1]))
    ),
)


@settings(deadline=None, max_examples=150)
@given(query=queries, item=st.sampled_from(ITEMS), model=st.sampled_from(SUMMED))
def test_contributions_and_remainder_add_up_to_the_lines_score(
    live: LiveBundle, query: Query, item: int, model: str
) -> None:
    found = explain(query, item, model, live)
    served = score_of(live, query, item, model)
    if served is None or found.method == "popular":
        assert found.method == "popular" or found.score == pytest.approx(0.0, abs=1e-6)
        return
    assert found.score == pytest.approx(served, rel=1e-3, abs=1e-3)
    if found.method == "parts":
        total = sum(one.weight for one in found.contributions) + found.remainder
        assert total == pytest.approx(found.score, rel=1e-6, abs=1e-6)
    weights = [one.weight for one in found.contributions]
    assert weights == sorted(weights, reverse=True)


@settings(deadline=None, max_examples=100)
@given(
    history=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=12, unique=True),
    item=st.sampled_from(ITEMS),
    model=st.sampled_from(("als", "decayed", "trained", "knn", "recent", "ease")),
)
def test_a_folded_in_score_leaves_nothing_unexplained(
    live: LiveBundle, history: list[int], item: int, model: str
) -> None:
    found = explain(Query(None, 1, history=tuple(history)), item, model, live)
    if found.method == "popular":
        return
    assert found.method == "parts"
    assert found.remainder == pytest.approx(0.0, abs=1e-4)
    assert {one.item_id for one in found.contributions} <= set(history)


def test_a_trained_vector_is_what_its_history_folds_in_to(live: LiveBundle) -> None:
    found = explain(Query(100, 1), 14, "trained", live)
    assert found.score is not None
    assert found.remainder == pytest.approx(0.0, abs=1e-3 * max(abs(found.score), 1.0))
    assert len(found.contributions) == 8


def test_item_to_item_contributions_are_the_matrixs_own_entries(live: LiveBundle) -> None:
    dataset = tiny_dataset()
    history = [10, 14, 18]
    matrix = dataset.matrix(binary=True).toarray()
    likeness = matrix.T @ matrix
    for model, weights in (("ease", (1, 1, 1)), ("recent", (0.5, 2**-0.5, 1))):
        found = explain(Query(None, 1, history=tuple(history)), 22, model, live)
        expected = {
            item: weight * likeness[(item - 10) // 2, 6]
            for item, weight in zip(history, weights, strict=True)
        }
        assert {one.item_id: one.weight for one in found.contributions} == pytest.approx(expected)


def test_lists_are_explained_by_users_who_share_history(live: LiveBundle) -> None:
    dataset = tiny_dataset()
    matrix = dataset.matrix(binary=True).toarray().astype(bool)
    row = 3
    item_row = int(
        live.bundle.models["lists"].arrays["items"][live.bundle.models["lists"].arrays["indptr"][row]]
    )
    found = explain(Query(100 + 3 * row, 1), ITEMS[item_row], "lists", live)
    near = [n for n in range(60) if n != row and (matrix[n] & matrix[row]).sum() >= 2]
    assert (found.method, found.neighbours) == ("neighbours", len(near))
    assert found.holders == sum(matrix[n, item_row] for n in near)
    assert found.score is not None


def test_a_newcomer_is_told_of_popularity(live: LiveBundle) -> None:
    popular = recommend(Query(None, 3), Plan("popular"), live, Deadline.none())
    item: Any = popular.item_ids[1]
    for model in ("als", "knn", "lists", "popular"):
        found = explain(Query(5, 1), item, model, live)
        assert (found.method, found.place, found.contributions) == ("popular", 2, ())
    assert explain(Query(5, 1), item, "popular", live).score == popular.scores[1]


def test_titles_come_from_the_catalogue(live: LiveBundle) -> None:
    found = explain(Query(None, 1, history=(10, 14)), 18, "ease", live)
    assert found.title == "Title 4"
    assert {one.title for one in found.contributions} == {"Title 0", "Title 2"}


def test_what_does_not_exist_is_not_explained(live: LiveBundle, tmp_path: Path) -> None:
    with pytest.raises(ItemNotFound):
        explain(Query(100, 1), 11, "als", live)
    with pytest.raises(ModelNotFound):
        explain(Query(100, 1), 10, "nothing", live)
