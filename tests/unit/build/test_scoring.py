from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from factories import tiny_dataset, trained_models

from models.build.assemble import assemble
from models.build.recipes import RECIPES
from models.build.scoring import exam_of, ndcg
from models.build.tune import thinned, tuning_split
from models.data.dataset import Dataset
from models.data.splits import Split, validation_split
from models.ease import ease
from models.evaluation.run import evaluate_model
from models.knn import item_knn
from models.trained import TrainedModel
from service.bundle.reader import load_bundle
from service.recommender.live import go_live


@pytest.fixture(scope="module")
def split() -> Split:
    """Items have tags of their own: of equal scores at the end of a list either may be taken."""
    data = tiny_dataset(n_users=150)
    assert data.items is not None
    draw = np.random.default_rng(5)
    tags = [draw.choice(30, 5, replace=False).astype(str).tolist() for _ in range(data.n_items)]
    return validation_split(replace(data, items=data.items.with_columns(tags=pl.Series(tags))))


def models(data: Dataset) -> dict[str, TrainedModel]:
    fading = item_knn.Config(history_half_life=1.5, half_life=3.0)
    made: dict[str, TrainedModel] = {
        name: recipe.train(data, recipe.start(data), seed=0)
        for name, recipe in RECIPES.items()
        if recipe.lacks(data) is None
    }
    return {
        **made,
        "fading_knn": item_knn.train(data, fading),
        "fading_ease": ease.train(data, ease.Config(history_half_life=2.0, regularization=20.0)),
        "narrow_ease": ease.train(data, ease.Config(history_half_life=2.0, regularization=20.0, width=30)),
        "lists": trained_models(data)["lists"],
    }


def test_what_tuning_scores_is_what_the_serving_line_scores(split: Split, tmp_path: Path) -> None:
    train, test = split.train, split.test
    exam = exam_of(train, test, max_users=1000, seed=0)
    trained = models(train)
    live = go_live(
        load_bundle(assemble(tmp_path, train, trained, default_model="popular", index="none").path)
    )
    users, items = test.user_ids.take(test.user_rows), test.item_ids.take(test.item_rows)
    for name, model in trained.items():
        served = evaluate_model(live, name, users, items, k=10)
        # The line tops up with popular items where a model runs out of its own, so it may only gain.
        tuned = float(ndcg(model, exam).mean())
        if (served.replay.n_personal == 10).all():
            assert served.metrics["NDCG@10"] == pytest.approx(tuned, abs=1e-4), name
        else:
            assert served.metrics["NDCG@10"] >= tuned - 1e-4, name
    assert exam.user_rows.tolist() == np.unique(test.user_rows).tolist()


def test_most_of_these_models_fill_ten_places_by_themselves(split: Split, tmp_path: Path) -> None:
    """Else the test above would compare little."""
    trained = models(split.train)
    path = assemble(tmp_path, split.train, trained, default_model="popular", index="none").path
    live = go_live(load_bundle(path))
    users = split.test.user_ids.take(split.test.user_rows)
    items = split.test.item_ids.take(split.test.item_rows)
    full = [
        name
        for name in trained
        if (evaluate_model(live, name, users, items, k=10).replay.n_personal == 10).all()
    ]
    assert {"popular", "als", "ease", "fading_ease"} <= set(full)


def test_examining_changes_nothing(split: Split) -> None:
    exam = exam_of(split.train, split.test, max_users=1000, seed=0)
    items, indptr = exam.items.copy(), exam.indptr.copy()
    plain = ease.train(split.train, ease.Config(regularization=20.0))
    fading = ease.train(split.train, ease.Config(regularization=20.0, history_half_life=0.1))
    before = ndcg(plain, exam)
    ndcg(fading, exam)
    np.testing.assert_array_equal(ndcg(plain, exam), before)
    np.testing.assert_array_equal(exam.items, items)
    np.testing.assert_array_equal(exam.indptr, indptr)


def test_ndcg_by_hand() -> None:
    data = tiny_dataset(n_users=12, n_items=10)
    train = data.select(np.arange(len(data)) % 4 != 3)
    exam = exam_of(train, data.select(np.arange(len(data)) % 4 == 3), max_users=100, seed=0)
    order = np.arange(10, dtype=np.int32)
    popular = TrainedModel(
        "popular",
        {
            "indptr": np.array([0, 10]),
            "items": order,
            "scores": -order.astype(np.float32),
            "user_segment": np.zeros(12, np.int32),
        },
    )
    gains = ndcg(popular, exam, k=3)
    for place, user in enumerate(exam.user_rows):
        seen = set(train.item_rows[train.user_rows == user].tolist())
        relevant = set(exam.relevant[place].indices.tolist())
        shown = [item for item in range(10) if item not in seen][:3]
        gained = sum(1 / np.log2(rank + 2) for rank, item in enumerate(shown) if item in relevant)
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(3, len(relevant))))
        assert gains[place] == pytest.approx(gained / ideal)


def test_an_exam_asks_for_news_of_known_users_only(split: Split) -> None:
    test = split.test
    repeated = replace(
        test,
        user_rows=np.concatenate([test.user_rows, split.train.user_rows[:50]]),
        item_rows=np.concatenate([test.item_rows, split.train.item_rows[:50]]),
        weights=np.ones(len(test) + 50, np.float32),
        times=None,
        time_kind=None,
    )
    exam = exam_of(split.train, repeated, max_users=1000, seed=0)
    assert exam.relevant.nnz == len(test)
    cold = split.train.select(split.train.user_rows > 20)
    assert exam_of(cold, test, max_users=1000, seed=0).user_rows.min() > 20
    assert exam_of(cold, test, max_users=1000, seed=0, with_cold=True).user_rows.min() <= 20


def test_a_sample_of_users_is_drawn_by_seed(split: Split) -> None:
    drawn: list[Any] = [
        exam_of(split.train, split.test, max_users=20, seed=seed).user_rows.tolist() for seed in (1, 1, 2)
    ]
    assert len(drawn[0]) == 20
    assert drawn[0] == drawn[1] != drawn[2]


def test_thinning_keeps_whole_users() -> None:
    data = tiny_dataset(n_users=200)
    fewer = thinned(data, 400, seed=0)
    assert 300 < len(fewer) <= 400
    whole = np.bincount(data.user_rows, minlength=200)
    left = np.bincount(fewer.user_rows, minlength=200)
    assert set(left[left > 0].tolist()) <= set(whole.tolist())
    assert ((left == 0) | (left == whole)).all()
    assert thinned(data, 10**6, seed=0) is data


def test_popular_items_are_tuned_on_users_without_history_too() -> None:
    """Here everybody comes once: no user of the last days is known before."""
    data = tiny_dataset(n_users=400)
    common = validation_split(data)
    split = tuning_split("popular", data, common)
    assert split.name == "global_time"
    assert len(exam_of(split.train, split.test, max_users=1000, seed=0)) <= 1
    assert len(exam_of(split.train, split.test, max_users=1000, seed=0, with_cold=True)) >= 39
    assert tuning_split("als", data, common) is common
    unordered = replace(data, times=None, time_kind=None)
    assert tuning_split("popular", unordered, common) is common
    described = replace(unordered, users=pl.DataFrame({"sex": ["f", "m"] * 200}))
    for new in (described, replace(data, time_kind="position")):
        held_out = tuning_split("popular", new, common)
        assert not np.isin(held_out.test.user_rows, held_out.train.user_rows).any()
        assert 60 < len(np.unique(held_out.test.user_rows)) < 140
