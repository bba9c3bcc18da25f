from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
import with_torch  # noqa: F401 - skips this file where torch is not installed
from factories import tiny_dataset

from models.data.dataset import Dataset
from models.dssm.config import Config
from models.dssm.dssm import start_of, train
from models.history import unique_history
from models.towers.checkpoints import checkpoints_in
from models.trained import TrainedModel
from service.errors import InputError

SMALL = Config(
    dim=8, history_length=10, heads=2, hidden=16, text_buckets=64, negatives=16, batch=64, max_epochs=6
)


def changed(**settings: Any) -> Config:
    return replace(SMALL, **settings)


def told_apart(n_users: int = 80) -> Dataset:
    """The tiny data's two tastes, with a table that says whose taste is whose."""
    dataset = tiny_dataset(n_users)
    taste = ["even" if row % 2 == 0 else "odd" for row in range(n_users)]
    age = [None if row % 7 == 0 else 20.0 + row for row in range(n_users)]
    return replace(dataset, users=pl.DataFrame({"taste": taste, "age": age}))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return told_apart()


@pytest.fixture(scope="module")
def trained(dataset: Dataset) -> TrainedModel:
    return train(dataset, replace(SMALL, epochs=25), seed=1)


def own_taste(model: TrainedModel, vectors: np.ndarray, users: list[int]) -> float:
    """Share of the best ten items, by parity of their rows, that are of the users' own taste."""
    scores = vectors @ model.arrays["item_vectors"].T
    best = model.arrays["item_rows"][np.argsort(-scores, axis=1)[:, :10]]
    return float((best % 2 == np.array(users)[:, None] % 2).mean())


def test_users_are_told_items_of_their_own_taste(trained: TrainedModel) -> None:
    users = trained.arrays["user_rows"].tolist()
    assert len(users) == 75
    assert own_taste(trained, trained.arrays["user_vectors"], users) > 0.95


def test_the_tower_answers_what_is_stored_for_users_who_are_known(
    dataset: Dataset, trained: TrainedModel
) -> None:
    assert trained.tower is not None
    session = onnxruntime.InferenceSession(trained.tower)
    indptr, items = unique_history(dataset)
    position = np.full(dataset.n_items, -1, np.int64)
    position[trained.arrays["item_rows"]] = np.arange(len(trained.arrays["item_rows"]))
    length = trained.parameters["tower"]["history_length"]
    for place, user in enumerate(trained.arrays["user_rows"].tolist()):
        history = position[items[indptr[user] : indptr[user + 1]]][-length:] + 1
        assert len(history)
        profile = trained.arrays["user_features"][user][None]
        (vector,) = session.run(["vector"], {"history": history[None], "features": profile})
        np.testing.assert_allclose(vector[0], trained.arrays["user_vectors"][place], atol=1e-4)


def test_features_alone_suffice_for_users_without_history(trained: TrainedModel) -> None:
    """The last five users of the data have no events: M8's cold users."""
    session = onnxruntime.InferenceSession(trained.tower)
    users = list(range(75, 80))
    profiles = trained.arrays["user_features"][users]
    vectors = np.concatenate(
        [
            session.run(["vector"], {"history": np.zeros((1, 1), np.int64), "features": one[None]})[0]
            for one in profiles
        ]
    )
    assert own_taste(trained, vectors, users) > 0.8
    assert trained.parameters["tower"]["features"][:2] == ["taste=even", "taste=odd"]


def test_newcomers_are_left_to_popularity_where_features_say_no_more(trained: TrainedModel) -> None:
    """Segments by the very column that tells tastes apart can hardly be beaten."""
    newcomers = trained.training["newcomers"]
    assert newcomers["tower"] < newcomers["popular"] * 1.1
    assert trained.parameters["tower"]["without_history"] == newcomers["answered_by"] == "popular"


def test_newcomers_are_told_by_the_tower_where_it_knows_better() -> None:
    """Taste is the parity of two columns together with a third, which no segment of one or two columns sees."""
    dataset = tiny_dataset(200)
    generator = np.random.default_rng(5)
    bits = generator.integers(0, 2, (200, 4))
    flags = {f"in_{place}": [f"{'yes' if bit else 'no'}" for bit in bits[:, place]] for place in range(4)}
    wanted = bits.sum(axis=1) >= 2
    user_rows, item_rows = [], []
    for user in range(200):
        own = np.arange(int(wanted[user]), dataset.n_items, 2)
        user_rows += [user] * 8
        item_rows += generator.choice(own, 8, replace=False).tolist()
    count = len(user_rows)
    dataset = replace(
        dataset, user_rows=np.array(user_rows, np.int32), item_rows=np.array(item_rows, np.int32),
        weights=np.ones(count, np.float32), times=np.arange(count, dtype=np.int64), users=pl.DataFrame(flags),
    )  # fmt: skip
    model = train(dataset, changed(epochs=15, history_dropout=0.3), seed=1)
    newcomers = model.training["newcomers"]
    assert newcomers["tower"] > newcomers["popular"]
    assert model.parameters["tower"]["without_history"] == newcomers["answered_by"] == "tower"


def test_an_item_nobody_read_is_found_by_its_features() -> None:
    dataset = told_apart()
    assert dataset.items is not None
    genre = [["left"] if row % 2 == 0 else ["right"] for row in range(dataset.n_items)]
    dataset = replace(dataset, items=pl.DataFrame({"title": dataset.items["title"], "genres": genre}))
    unread = [30, 31]
    dataset = dataset.select(~np.isin(dataset.item_rows, unread))
    model = train(dataset, changed(epochs=25, text_buckets=0, item_dropout=0.3, user_ids=True), seed=1)
    vectors = dict(zip(model.arrays["item_rows"].tolist(), model.arrays["item_vectors"], strict=True))
    for user, vector in zip(model.arrays["user_rows"].tolist(), model.arrays["user_vectors"], strict=True):
        own, other = (30, 31) if user % 2 == 0 else (31, 30)
        assert vector @ vectors[own] > vector @ vectors[other], user


def test_without_features_items_nobody_read_have_no_vector() -> None:
    dataset = replace(tiny_dataset(), items=None)
    dataset = dataset.select(dataset.item_rows != 4)
    model = train(dataset, replace(SMALL, epochs=2), seed=1)
    assert 4 not in model.arrays["item_rows"]
    assert "features" not in model.parameters["tower"]
    session = onnxruntime.InferenceSession(model.tower)
    assert [one.name for one in session.get_inputs()] == ["history"]


@pytest.mark.parametrize("space", ["ip", "cosine"])
def test_equal_seeds_give_equal_models(dataset: Dataset, space: str) -> None:
    config = changed(user_ids=True, space=space, hard_negatives=3, horizon=2)
    first, again, other = (train(dataset, config, seed=seed) for seed in (1, 1, 2))
    assert first.tower is None
    for role, array in first.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[role])
    assert not np.array_equal(first.arrays["user_vectors"], other.arrays["user_vectors"])
    norms = np.linalg.norm(first.arrays["item_vectors"], axis=1)
    assert np.allclose(norms, 1.0, atol=1e-5) == (space == "cosine")


def test_it_stops_by_what_it_holds_out_and_then_trains_on_everything(dataset: Dataset) -> None:
    model = train(dataset, replace(SMALL, user_ids=True, max_epochs=30, patience=2), seed=1)
    scores = model.training["held_out_ndcg"]
    assert model.training["epochs_run"] == int(np.argmax(scores)) + 1
    assert max(scores) > scores[0] or len(scores) == 3


def test_a_build_that_was_interrupted_goes_on_from_its_checkpoints(dataset: Dataset, tmp_path: Path) -> None:
    config = changed(user_ids=True, max_epochs=4, patience=4)
    straight = train(dataset, config, seed=1)
    with checkpoints_in(tmp_path):
        first = train(dataset, config, seed=1)
        assert len(list(tmp_path.iterdir())) == 2  # one that finds when to stop, one on everything
        with_more_time = train(dataset, replace(config, max_seconds=900.0), seed=1)
        assert len(list(tmp_path.iterdir())) == 2
    for model in (first, with_more_time):
        np.testing.assert_array_equal(model.arrays["user_vectors"], straight.arrays["user_vectors"])


def test_data_without_order_or_tables_is_enough() -> None:
    dataset = replace(tiny_dataset(), times=None, time_kind=None, items=None)
    model = train(dataset, changed(user_ids=True, epochs=15), seed=1)
    assert own_taste(model, model.arrays["user_vectors"], model.arrays["user_rows"].tolist()) > 0.9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("dropout", 1.0),
        ("negatives", -1),
        ("temperature", 0.0),
        ("history_length", 5000),
        ("epochs", 0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(dataset: Dataset, field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        train(dataset, changed(**{field: value}))


def test_the_start_reaches_no_further_than_histories_do(dataset: Dataset) -> None:
    assert start_of(dataset).history_length == 8
