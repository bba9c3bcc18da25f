from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from factories import tiny_dataset

from models.data.dataset import Dataset
from models.mf.gradient import Config, descend, loss_and_gradients, train
from service.errors import InputError


def rated(n_users: int = 60) -> Dataset:
    """Users rate items of their own block 5, where the other block's mean is 2."""
    data = tiny_dataset(n_users=n_users)
    generator = np.random.default_rng(5)
    users = generator.integers(0, n_users - 5, 1500).astype(np.int32)
    items = generator.integers(0, data.n_items, 1500).astype(np.int32)
    ratings = np.where(users % 2 == items % 2, 5.0, 2.0).astype(np.float32)
    return replace(
        data,
        user_rows=users,
        item_rows=items,
        weights=np.ones(1500, np.float32),
        times=np.arange(1500),
        ratings=ratings,
    )


def test_gradients_are_the_losss_finite_differences() -> None:
    generator = np.random.default_rng(0)
    ratings = sp.random(7, 9, 0.4, format="csr", random_state=np.random.RandomState(1), dtype=np.float64)
    users, items = generator.normal(size=(7, 3)), generator.normal(size=(9, 3))
    _, to_users, to_items = loss_and_gradients(ratings, users, items)
    step = 1e-6
    for factors, gradient in ((users, to_users), (items, to_items)):
        for place in np.ndindex(factors.shape):
            kept = factors[place]
            factors[place] = kept + step
            above = loss_and_gradients(ratings, users, items)[0]
            factors[place] = kept - step
            below = loss_and_gradients(ratings, users, items)[0]
            factors[place] = kept
            assert (above - below) / (2 * step) == pytest.approx(gradient[place], abs=1e-6)


def test_the_loss_falls_and_held_out_ratings_are_foretold() -> None:
    data = rated()
    held_out = np.random.default_rng(1).random(len(data)) < 0.2
    model = train(data.select(~held_out), Config(factors=8, iterations=400), seed=3)
    first, middle, last = model.training["train_mse"]
    assert first > middle > last
    assert last < 0.1
    test = data.select(held_out)
    assert test.ratings is not None
    places_u = np.searchsorted(model.arrays["user_rows"], test.user_rows)
    places_i = np.searchsorted(model.arrays["item_rows"], test.item_rows)
    foretold = np.einsum(
        "nk,nk->n", model.arrays["user_vectors"][places_u], model.arrays["item_vectors"][places_i]
    )
    assert float(np.mean((foretold - test.ratings) ** 2)) < 0.2 * float(np.var(test.ratings))


def test_factors_start_uniform_below_six_over_their_number() -> None:
    ratings = sp.csr_matrix(np.full((200, 100), 3.0))
    users, items, _ = descend(ratings, Config(factors=50, iterations=1, learning_rate=1e-9), seed=3)
    for factors in (users, items):
        assert factors.min() >= 0.0
        assert factors.max() == pytest.approx(0.12, rel=0.01)


def test_data_without_ratings_is_refused() -> None:
    with pytest.raises(InputError, match="no ratings"):
        train(tiny_dataset(), Config())


def test_steps_that_run_away_are_refused_with_the_way_out() -> None:
    with np.errstate(all="ignore"), pytest.raises(InputError, match="learning_rate"):
        train(rated(), Config(learning_rate=1e6, iterations=200))
