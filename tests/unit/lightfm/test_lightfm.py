from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from factories import tiny_dataset

from models.data.dataset import Dataset
from models.lightfm.lightfm import Config, train
from models.lightfm.tokens import token_matrix
from models.trained import TrainedModel
from service.errors import InputError

CONFIG = Config(factors=8, epochs=30)


def described(n_users: int = 200) -> Dataset:
    """The taste blocks, which users and items also have in words; the last five users have no events."""
    data = tiny_dataset(n_users=n_users)
    users = pl.DataFrame({"taste": [f"block {row % 2}" for row in range(data.n_users)]})
    items = pl.DataFrame({"genres": [[f"genre {row % 2}"] for row in range(data.n_items)]})
    return replace(data, users=users, items=items)


def share_of_own_taste(data: Dataset, model: TrainedModel, users: list[int]) -> float:
    rows, items = model.arrays["user_rows"].tolist(), model.arrays["item_rows"]
    vectors = model.arrays["user_vectors"][[rows.index(user) for user in users]]
    scores = vectors @ model.arrays["item_vectors"].T
    seen = data.matrix().toarray()[users][:, items] > 0
    best = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :5]
    return float((items[best] % 2 == (np.array(users) % 2)[:, None]).mean())


@pytest.mark.parametrize("loss", ["logistic", "bpr", "warp", "warp-kos"])
def test_users_are_offered_items_of_their_own_taste(loss: Any) -> None:
    data = described()
    model = train(data, replace(CONFIG, loss=loss, features=loss != "warp-kos"), seed=1)
    assert share_of_own_taste(data, model, list(range(100))) > 0.9


def test_a_user_without_events_is_offered_items_by_their_features() -> None:
    data = described()
    model = train(data, CONFIG, seed=1)
    cold = list(range(data.n_users - 5, data.n_users))
    assert not set(cold) & set(data.user_rows.tolist())
    assert share_of_own_taste(data, model, cold) == 1.0


def test_without_features_users_and_items_without_events_have_no_vector() -> None:
    data = described()
    model = train(data, replace(CONFIG, features=False), seed=1)
    assert model.arrays["user_rows"].tolist() == sorted(set(data.user_rows.tolist()))
    assert model.arrays["item_rows"].tolist() == sorted(set(data.item_rows.tolist()))


def test_one_seed_gives_one_model() -> None:
    first, again = (train(described(60), CONFIG, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.arrays["item_vectors"], again.arrays["item_vectors"])


def test_one_epoch_at_least_is_learned_when_the_time_is_over() -> None:
    data = described()
    hurried = train(data, Config(epochs=9, max_seconds=1e-9), seed=3).arrays
    once = train(data, Config(epochs=1), seed=3).arrays
    np.testing.assert_array_equal(hurried["item_vectors"], once["item_vectors"])


@pytest.mark.parametrize(
    "change", [{"factors": 0}, {"epochs": 0}, {"learning_rate": 0.0}, {"item_alpha": -1.0}]
)
def test_a_setting_out_of_range_is_refused_by_name(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        train(described(60), replace(CONFIG, **change))  # type: ignore[arg-type] # a bad value is the test


def test_tokens_are_a_rows_own_and_its_values_with_equal_shares() -> None:
    table = pl.DataFrame(
        {
            "genres": pl.Series([["a", "b"], ["b", "b"], None], dtype=pl.List(pl.String)),
            "sex": ["F", None, "M"],
        }
    )
    matrix = token_matrix(table, 3).toarray()
    expected = [  # own x 3, then genres a b, then sex F M
        [0.25, 0, 0, 0.25, 0.25, 0.25, 0],
        [0, 0.5, 0, 0, 0.5, 0, 0],
        [0, 0, 0.5, 0, 0, 0, 0.5],
    ]
    np.testing.assert_allclose(matrix, expected)


def test_numbers_of_many_values_are_cut_at_their_quantiles() -> None:
    matrix = token_matrix(pl.DataFrame({"age": [float(age) for age in range(99)] + [None]}), 100)
    assert matrix.shape == (100, 110)
    assert np.diff(matrix.indptr).tolist() == [2] * 99 + [1]
