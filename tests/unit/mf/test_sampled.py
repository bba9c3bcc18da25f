from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset

from models.data.dataset import Dataset
from models.mf.sampled import BprConfig, LmfConfig, train_bpr, train_lmf
from models.trained import TrainedModel
from service.errors import InputError

BOTH = pytest.mark.parametrize(
    ("train", "config"),
    [(train_bpr, BprConfig(factors=8)), (train_lmf, LmfConfig(factors=2, iterations=100))],
    ids=["bpr", "lmf"],
)
Train = Callable[..., TrainedModel]


def share_of_own_taste(data: Dataset, model: TrainedModel) -> float:
    users, items = model.arrays["user_rows"], model.arrays["item_rows"]
    scores = model.arrays["user_vectors"] @ model.arrays["item_vectors"].T
    seen = data.matrix().toarray()[users][:, items] > 0
    best = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :5]
    return float((items[best] % 2 == (users % 2)[:, None]).mean())


@BOTH
def test_users_are_offered_items_of_their_own_taste(train: Train, config: Any) -> None:
    data = tiny_dataset(n_users=200)
    assert share_of_own_taste(data, train(data, config, seed=1)) > 0.9


@BOTH
def test_one_seed_gives_one_model_and_another_seed_another(train: Train, config: Any) -> None:
    data = tiny_dataset()
    first, again, other = (train(data, config, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.arrays["item_vectors"], again.arrays["item_vectors"])
    assert not np.array_equal(first.arrays["item_vectors"], other.arrays["item_vectors"])


@BOTH
def test_users_and_items_without_events_have_no_vector(train: Train, config: Any) -> None:
    data = tiny_dataset()
    model = train(data, config)
    assert model.arrays["user_rows"].tolist() == sorted(set(data.user_rows.tolist()))
    assert model.arrays["item_rows"].tolist() == sorted(set(data.item_rows.tolist()))


@BOTH
@pytest.mark.parametrize("change", [{"factors": 0}, {"iterations": 0}, {"learning_rate": 0.0}])
def test_a_setting_out_of_range_is_refused_by_name(
    train: Train, config: Any, change: dict[str, float]
) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        train(tiny_dataset(), replace(config, **change))


@BOTH
def test_no_events_are_refused(train: Train, config: Any) -> None:
    data = tiny_dataset()
    with pytest.raises(InputError, match="no events"):
        train(data.select(np.zeros(len(data), bool)), config)
