from __future__ import annotations

from dataclasses import replace
from typing import Any

import implicit.cpu.als
import numpy as np
import pytest
import threadpoolctl
from factories import tiny_dataset

from models.als.als import Config, train
from models.event_weights import decay_of, pair_matrix
from models.history import ages_from_end, unique_history
from models.trained import TrainedModel
from service.errors import InputError
from service.recommender.fold_in import AlsFoldIn

CONFIG = Config(factors=8, alpha=4.0, regularization=0.5, iterations=12)


def solver(model: TrainedModel) -> AlsFoldIn:
    items = model.arrays["item_vectors"]
    return AlsFoldIn(items, items.T @ items, **model.parameters["fold_in"])


def test_users_are_offered_items_of_their_own_taste() -> None:
    data = tiny_dataset(n_users=200)
    model = train(data, replace(CONFIG, factors=2), seed=1)
    scores = model.arrays["user_vectors"] @ model.arrays["item_vectors"].T
    seen = data.matrix().toarray()[model.arrays["user_rows"]][:, model.arrays["item_rows"]] > 0
    best = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :5]
    same_block = model.arrays["item_rows"][best] % 2 == (model.arrays["user_rows"] % 2)[:, None]
    assert same_block.mean() > 0.95


def test_users_and_items_without_events_have_no_vector() -> None:
    data = tiny_dataset()
    model = train(data, CONFIG)
    assert model.arrays["user_rows"].tolist() == sorted(set(data.user_rows.tolist()))
    assert model.arrays["item_rows"].tolist() == sorted(set(data.item_rows.tolist()))
    assert len(model.arrays["user_rows"]) < data.n_users
    for role in ("item_vectors", "user_vectors"):
        assert model.arrays[role].dtype == np.float32
        assert (np.linalg.norm(model.arrays[role], axis=1) > 0).all()


def test_one_seed_gives_one_model_on_any_number_of_threads() -> None:
    data = tiny_dataset(n_users=300)
    first = train(data, CONFIG, seed=3)
    with threadpoolctl.threadpool_limits(1):
        alone = train(data, CONFIG, seed=3)
    other = train(data, CONFIG, seed=4)
    for role, array in first.arrays.items():
        np.testing.assert_array_equal(array, alone.arrays[role])
    assert not np.array_equal(first.arrays["item_vectors"], other.arrays["item_vectors"])


@pytest.mark.parametrize("half_life", [None, 3.0])
def test_a_stored_vector_is_what_fold_in_solves_from_the_same_history(half_life: float | None) -> None:
    data = tiny_dataset(n_users=120)
    model = train(data, replace(CONFIG, half_life=half_life), seed=2)
    fold_in = solver(model)
    indptr, items = unique_history(data)
    place_of = np.full(data.n_items, -1)
    place_of[model.arrays["item_rows"]] = np.arange(len(model.arrays["item_rows"]))
    for user, vector in list(zip(model.arrays["user_rows"], model.arrays["user_vectors"], strict=True))[:40]:
        history = place_of[items[indptr[user] : indptr[user + 1]]]
        np.testing.assert_allclose(fold_in.solve(history), vector, rtol=2e-3, atol=2e-4)


def test_fold_in_is_implicits_own_recalculation() -> None:
    data = tiny_dataset(n_users=120)
    model = train(data, CONFIG, seed=2)
    reference = implicit.cpu.als.AlternatingLeastSquares(
        factors=CONFIG.factors, alpha=CONFIG.alpha, regularization=CONFIG.regularization
    )
    reference.item_factors = np.array(model.arrays["item_vectors"])
    matrix = data.matrix(binary=True)[:, model.arrays["item_rows"]].tocsr()
    for user in range(20):
        expected = reference.recalculate_user(0, matrix[user])
        np.testing.assert_allclose(solver(model).solve(matrix[user].indices), expected, rtol=2e-3, atol=2e-4)


def test_given_weights_become_confidences_of_mean_alpha() -> None:
    data = tiny_dataset(n_users=120)
    weights = np.where(data.item_rows < 10, 5.0, 1.0).astype(np.float32)
    weighted = replace(data, weights=weights)
    doubled = replace(data, weights=2 * weights)
    config = replace(CONFIG, weights="given")
    first, second = train(weighted, config), train(doubled, config)
    np.testing.assert_allclose(
        first.arrays["user_vectors"], second.arrays["user_vectors"], rtol=1e-4, atol=1e-5
    )
    binary = train(weighted, CONFIG)
    assert not np.allclose(first.arrays["item_vectors"], binary.arrays["item_vectors"], atol=1e-3)


def test_more_iterations_lower_the_loss() -> None:
    """Hu, Koren & Volinsky, eq. 3, with implicit's confidences."""
    data = tiny_dataset(n_users=120)
    losses = [_loss(data, train(data, replace(CONFIG, iterations=n), seed=5)) for n in (1, 3, 12)]
    assert losses[0] > losses[1] > losses[2]


def _loss(data: Any, model: TrainedModel) -> float:
    users, items = model.arrays["user_vectors"], model.arrays["item_vectors"]
    seen = data.matrix(binary=True).toarray()[model.arrays["user_rows"]][:, model.arrays["item_rows"]]
    confidence = np.where(seen > 0, CONFIG.alpha, 1.0)
    penalty = CONFIG.regularization * ((users**2).sum() + (items**2).sum())
    return float((confidence * (seen - users @ items.T) ** 2).sum() + penalty)


def test_unit_vectors_recommend_less_known_items() -> None:
    data = tiny_dataset(n_users=300, n_items=60)
    popularity = data.matrix(binary=True).toarray().sum(axis=0)

    def surprise(model: TrainedModel) -> float:
        scores = model.arrays["user_vectors"] @ model.arrays["item_vectors"].T
        best = model.arrays["item_rows"][np.argsort(-scores, axis=1)[:, :5]]
        return float(-np.log2(popularity[best] / data.n_users).mean())

    plain, unit = train(data, CONFIG), train(data, replace(CONFIG, space="cosine"))
    assert unit.space == "cosine"
    assert "fold_in" not in unit.parameters
    np.testing.assert_allclose(np.linalg.norm(unit.arrays["item_vectors"], axis=1), 1, atol=1e-5)
    assert surprise(unit) > surprise(plain)


def test_a_pair_fades_by_what_its_user_read_since() -> None:
    data = tiny_dataset()
    matrix = pair_matrix(data, "binary", 2.0).toarray()
    indptr, items = unique_history(data)
    decay = decay_of(ages_from_end(indptr), 2.0)
    for user in range(5):
        own = slice(indptr[user], indptr[user + 1])
        np.testing.assert_allclose(matrix[user, items[own]], decay[own], rtol=1e-6)
        assert matrix[user, items[own][-1]] == 1.0
        assert matrix[user].astype(bool).sum() == indptr[user + 1] - indptr[user]


def test_data_without_order_does_not_fade() -> None:
    data = replace(tiny_dataset(), times=None, time_kind=None)
    np.testing.assert_array_equal(
        pair_matrix(data, "binary", 2.0).toarray(), pair_matrix(data, "binary").toarray()
    )
    assert "half_life" not in train(data, replace(CONFIG, half_life=2.0)).parameters["fold_in"]


@pytest.mark.parametrize(
    "config",
    [
        Config(factors=0),
        Config(iterations=0),
        Config(alpha=0.0),
        Config(regularization=-1.0),
        Config(half_life=0.0),
    ],
)
def test_settings_out_of_range_are_refused(config: Config) -> None:
    with pytest.raises(InputError):
        train(tiny_dataset(), config)


def test_no_events_are_refused() -> None:
    data = tiny_dataset()
    with pytest.raises(InputError, match="no events"):
        train(data.select(np.zeros(len(data), bool)), CONFIG)


def test_a_rating_counts_from_one_for_the_lowest() -> None:
    data = tiny_dataset()
    ratings = (data.item_rows % 3 + 2).astype(np.float32)
    ratings[0] = np.nan
    matrix = pair_matrix(replace(data, ratings=ratings), "rating").toarray()
    found = matrix[data.user_rows, data.item_rows]
    np.testing.assert_allclose(found[1:], data.item_rows[1:] % 3 + 1)
    assert found[0] == pytest.approx(found[1:].mean(), rel=1e-5)
    np.testing.assert_array_equal(pair_matrix(data, "rating").toarray(), data.matrix(binary=True).toarray())


def test_vectors_for_some_users_are_theirs_among_all() -> None:
    data, asked = tiny_dataset(), np.array([3, 8, 30, 59])  # the last has no events
    everybodys, theirs = (
        train(data, Config(factors=8), seed=1, users=users).arrays for users in (None, asked)
    )
    np.testing.assert_array_equal(theirs["item_vectors"], everybodys["item_vectors"])
    assert theirs["user_rows"].tolist() == [3, 8, 30]
    np.testing.assert_allclose(theirs["user_vectors"], everybodys["user_vectors"][[3, 8, 30]], rtol=1e-6)
