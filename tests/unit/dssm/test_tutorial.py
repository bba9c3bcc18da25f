from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from factories import tiny_dataset
from with_torch import torch

from models.build.scoring import exam_of, ndcg
from models.data.dataset import Dataset
from models.data.splits import random_holdout
from models.dssm.tutorial import Config, Tutorial, train
from models.popularity import popularity
from service.errors import InputError


def rated() -> Dataset:
    dataset = tiny_dataset(120)
    ages = pl.DataFrame({"age": [20 + row % 40 if row % 11 else None for row in range(120)]})
    return replace(dataset, users=ages)


def test_its_towers_have_the_tutorials_widths() -> None:
    model = Tutorial(rated(), Config(), seed=0)
    assert model.users.ids.weight.shape == (120, 32)
    assert model.users.moments.weight.shape == (1_001, 32)
    assert model.users.out.weight.shape == (32, 65)
    assert model.items.titles.weight.shape == (40, 32)
    assert model.items.genres.weight.shape == (3, 32)  # comedy, drama, and none
    assert model.items.words.weight.shape == (42, 32)  # "title", 0 to 39, and none
    assert model.items.out.weight.shape == (32, 96)


def test_it_tells_held_out_items_more_often_than_chance() -> None:
    split = random_holdout(rated(), 0.2, seed=0)
    model = Tutorial(rated(), Config(epochs=30, batch=64, buckets=50), seed=3)
    course = model.fit(split.train)
    assert course.losses[-1] < course.losses[0] * 0.8
    # Of 40 items half are of a user's taste; what they have seen is not left out.
    assert model.accuracy(split.test, 20) > 0.75
    assert model.accuracy(split.test, 40) == 1.0


def test_equal_seeds_end_equal() -> None:
    config = Config(epochs=2, batch=64, buckets=50)
    first, again, other = (train(rated(), config, seed=seed).arrays["user_vectors"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_it_is_a_model_of_factors_that_beats_popularity() -> None:
    split = random_holdout(rated(), 0.2, seed=0)
    model = train(split.train, Config(epochs=30, batch=64, buckets=50), seed=1)
    exam = exam_of(split.train, split.test, max_users=1_000, seed=0)
    assert (
        ndcg(model, exam).mean()
        > ndcg(popularity.train(split.train, popularity.Config(), seed=0), exam).mean()
    )
    assert model.arrays["user_rows"].tolist() == np.unique(split.train.user_rows).tolist()
    assert all(
        torch.isfinite(torch.from_numpy(model.arrays[role])).all()
        for role in ("item_vectors", "user_vectors")
    )


def test_data_without_times_or_titles_is_refused() -> None:
    with pytest.raises(InputError, match="time"):
        train(replace(rated(), times=None, time_kind=None), Config())
    with pytest.raises(InputError, match="titles"):
        train(replace(rated(), items=None), Config())
