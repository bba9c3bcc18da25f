"""Items are alike in what they are about, also those nobody has read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from models.build.tune import tune, tuning_split
from models.content.content import Config, lacks, train, unit_vectors
from models.content.terms import term_matrix, words
from models.data.dataset import Dataset
from models.data.splits import item_cold, validation_split
from service.bundle.reader import load_bundle
from service.domain import Deadline, ItemFilter, Plan, Query
from service.errors import InputError
from service.recommender.live import go_live
from service.recommender.pipeline import recommend
from service.recommender.similar import similar

FRANCHISES = ("Star Wars", "Alien", "Toy Story", "Godfather", "Terminator")


def films(n: int = 40) -> pl.DataFrame:
    """Films of five franchises, told by a word of their titles; genres that cross them; a measured number."""
    return pl.DataFrame(
        {
            "title": [f"{FRANCHISES[row % 5]}: Part {chr(65 + row)}{row}x" for row in range(n)],
            "genres": [["drama"] if row % 3 else ["comedy", "drama"] for row in range(n)],
            "runtime": np.arange(n) * 1.5,
        }
    )


@pytest.fixture
def data() -> Dataset:
    return replace(tiny_dataset(), items=films())


def test_words_lose_one_english_ending() -> None:
    assert words("Networks, networking; METABOLIC_network") == ["network", "network", "metabol", "network"]
    assert words("was his bus") == ["was", "his", "bus"]


def test_terms_are_values_and_words_that_two_items_share() -> None:
    items = pl.DataFrame(
        {
            "tags": [["neural_nets", "alone"], ["neural_nets"], ["neural"]],
            "year": [1999, 1999, 2001],
            "size": [1, 2, 3],
        }
    ).with_columns(pl.Series("size", np.arange(3) * 0.5))
    assert term_matrix(items, "values").shape[1] == 2  # the tag of two, the year of two
    assert term_matrix(items, "words").shape[1] == 2  # neural, and nets of two
    assert term_matrix(items, "both").toarray().sum(axis=1).tolist() == [4, 4, 1]


def test_likeness_is_the_cosine_of_tf_idf_by_hand() -> None:
    items = pl.DataFrame({"tags": [["a", "b"], ["a", "b"], ["b"]]})
    vectors = unit_vectors(term_matrix(items, "values"), 1.0).toarray()
    idf = np.log(4 / np.array([3, 4])) + 1
    expected = idf[1] / np.hypot(*idf)
    np.testing.assert_allclose(vectors[0] @ vectors[2], expected, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_the_weights_are_the_formulas(data: Dataset) -> None:
    assert data.items is not None
    config = Config(rarity=1.5, length=0.3, hubs=0.4, neighbours=1000)
    arrays = train(data, config).arrays
    terms = term_matrix(data.items, "both")
    x = unit_vectors(terms, 1.5).toarray()
    cosines = x @ x.T
    read = np.zeros(data.n_items)
    read[data.item_rows] = 1
    column = terms.getnnz(axis=1) ** 0.3 * np.maximum(cosines @ read, 1e-3) ** -0.4
    expected = cosines * column
    np.fill_diagonal(expected, 0)
    found = np.zeros_like(expected)
    rows = np.repeat(np.arange(data.n_items), np.diff(arrays["indptr"]))
    found[rows, arrays["indices"]] = arrays["weights"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_every_item_keeps_its_own_neighbours(data: Dataset) -> None:
    """So that one can be found however many are nearer to the items of a history."""
    arrays = train(data, Config(neighbours=3)).arrays
    assert np.bincount(arrays["indices"], minlength=data.n_items).tolist() == [3] * data.n_items


def test_only_some_items_may_be_made_to_be_found(data: Dataset) -> None:
    whole = train(data, Config(neighbours=5)).arrays
    some = train(data, Config(neighbours=5), items=np.array([4, 9])).arrays
    assert np.flatnonzero(np.bincount(some["indices"])).tolist() == [4, 9]
    for item in (4, 9):
        at, of_all = some["indices"] == item, whole["indices"] == item
        assert sorted(some["weights"][at]) == sorted(whole["weights"][of_all])


def test_neighbours_share_a_franchise_more_often_than_chance(data: Dataset, tmp_path: Path) -> None:
    models = {**trained_models(data), "content": train(data, Config())}
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=data, models=models, index="none")))
    same = []
    for row in range(data.n_items):
        nearest = similar(10 + 2 * row, 5, "content", live)
        same.append(np.mean([(int(item) - 10) // 2 % 5 == row % 5 for item, _ in nearest]))
    assert np.mean(same) > 0.9  # by chance 0.2


def test_an_item_without_events_is_recommended_by_what_it_is_about(data: Dataset, tmp_path: Path) -> None:
    cold = {3, 8, 14}
    data = data.select(~np.isin(data.item_rows, list(cold)))
    models = {**trained_models(data), "content": train(data, Config())}
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=data, models=models, index="none")))
    allowed = ItemFilter(allow=frozenset(10 + 2 * row for row in cold))
    history = (10 + 2 * 13, 10 + 2 * 23)  # franchise 3, as items 3 and 8
    slate = recommend(Query(None, 2, history=history, filter=allowed), Plan("content"), live, Deadline.none())
    assert set(slate.item_ids) == {10 + 2 * 3, 10 + 2 * 8}
    assert slate.n_personal == 2


def test_equal_inputs_give_equal_arrays(data: Dataset) -> None:
    one, other = (train(data, Config(), seed=seed).arrays for seed in (0, 1))
    assert all(np.array_equal(one[role], other[role]) for role in one)


def test_it_is_tuned_on_items_that_it_was_not_shown(data: Dataset) -> None:
    split = tuning_split("content", data, validation_split(data))
    assert split.name == "item_cold"
    assert not np.isin(split.test.item_rows, split.train.item_rows).any()
    found = tune("content", split, "quick")
    assert len(found.trials) > 5
    assert found.score == max(trial.score for trial in found.trials)


def test_a_split_by_items_keeps_users_that_train_knows(data: Dataset) -> None:
    split = item_cold(data, 0.3, seed=1)
    assert np.isin(split.test.user_rows, split.train.user_rows).all()
    assert len(np.unique(split.test.item_rows)) == 12
    assert len(split.train) + len(split.test) + sum(split.dropped.values()) == len(data)


@pytest.mark.parametrize(
    ("items", "reason"),
    [(None, "no table"), (pl.DataFrame({"size": np.arange(40) * 0.5 + 1000}), None)],
)
def test_data_without_words_lacks_what_it_needs(items: pl.DataFrame | None, reason: str | None) -> None:
    data = replace(tiny_dataset(), items=items)
    found = lacks(data)
    assert found is not None
    assert (reason or "no two items") in found
    if items is None:
        with pytest.raises(InputError, match="no table of items"):
            train(data, Config())
