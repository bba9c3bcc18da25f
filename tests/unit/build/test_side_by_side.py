"""Searches and trainings of a build side by side: what comes back, and what a first training spares later ones."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset

from models.build import side_by_side
from models.build.limits import UNLIMITED, Limits
from models.build.recipes import RECIPES
from models.build.side_by_side import at_once, settled, trained
from models.build.tuning import Trial
from models.data.dataset import Dataset
from models.data.splits import validation_split
from models.dssm.config import Config as Dssm
from models.knn import item_knn
from models.popularity import popularity
from models.trained import TrainedModel
from models.transitions import transitions
from service.bundle.ids import IntIds

CONFIGS = {
    "transitions": transitions.Config(window=2),
    "popular": popularity.Config(),
    "knn": item_knn.Config(neighbours=3, history_half_life=2.0),
}


def events(n: int) -> Dataset:
    random = np.random.default_rng(n)
    rows = np.arange(n, dtype=np.int32)
    return Dataset(
        name="made",
        user_ids=IntIds(np.arange(10, dtype=np.int64)),
        item_ids=IntIds(np.arange(20, dtype=np.int64)),
        user_rows=rows % 10,
        item_rows=random.integers(0, 20, n).astype(np.int32),
        weights=np.ones(n, np.float32),
        times=np.arange(n, dtype=np.int64),
        time_kind="position",
    )


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def test_models_of_several_moments_come_back_as_if_trained_in_turn(
    two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = [events(200), events(120)]
    named = [CONFIGS, {"knn": CONFIGS["knn"]}]
    beside = trained(moments, named, seed=0, progress=False)
    monkeypatch.setattr(side_by_side, "MOST_EVENTS", 0)
    assert at_once(moments[0]) == 1
    in_turn = trained(moments, named, seed=0, progress=False)
    assert [list(models) for models in beside] == [list(CONFIGS), ["knn"]]
    for one, other in zip(beside, in_turn, strict=True):
        for name in one:
            assert one[name].kind == other[name].kind
            assert one[name].parameters == other[name].parameters
            assert one[name].training == other[name].training
            assert one[name].arrays.keys() == other[name].arrays.keys()
            for role, array in one[name].arrays.items():
                assert array.dtype == other[name].arrays[role].dtype
                np.testing.assert_array_equal(array, other[name].arrays[role])


def test_a_tower_comes_back_byte_by_byte() -> None:
    model = TrainedModel(
        kind="factors",
        space="cosine",
        arrays={"tower": np.arange(3)},  # a role of the same name is another thing
        parameters={"tower": {"history_length": 4}},
        training={"losses": [0.1, 0.25]},
        tower=b"\x00onnx\xff\n",
    )
    back = side_by_side._unpacked(side_by_side._packed(model))
    assert back.tower == model.tower
    assert back.arrays["tower"].tolist() == [0, 1, 2]
    assert (back.kind, back.space) == ("factors", "cosine")
    assert (back.parameters, back.training) == (model.parameters, model.training)


def test_epochs_are_found_once() -> None:
    found = TrainedModel(kind="factors", arrays={}, training={"epochs_run": 7})
    configs = {"dssm": Dssm(max_seconds=100.0), "knn": CONFIGS["knn"]}
    later = settled(configs, {"dssm": found, "knn": found})
    assert later["dssm"].epochs == 7
    assert later["dssm"].max_seconds == pytest.approx(40.0)
    assert later["knn"] == configs["knn"]
    given = Dssm(epochs=3)
    assert RECIPES["dssm"].settled(given, found) == given


@pytest.mark.parametrize("name", ["lightgcn", "neumf"])
def test_later_trainings_end_with_the_best_epoch(name: str) -> None:
    config = RECIPES[name].config_type()
    found = TrainedModel(kind="lists", arrays={}, training={"epochs": 4})
    assert RECIPES[name].settled(config, found) == replace(config, max_epochs=4)
    cut_at_once = TrainedModel(kind="lists", arrays={}, training={"epochs": 0})
    assert RECIPES[name].settled(config, cut_at_once).max_epochs == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_a_search_whose_time_is_over_keeps_where_it_starts(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    dataset = tiny_dataset(n_users=120, n_items=30)
    split = validation_split(dataset, seed=0)
    names = ["popular", "knn", "transitions"]

    def searched(limits: Limits) -> tuple[dict[str, Any], list[str]]:
        tried: list[str] = []

        def hear(name: str, _trial: Trial[Any]) -> None:
            tried.append(name)

        found = side_by_side.tuned(names, dataset, split, {}, "quick", seed=0, on_trial=hear, limits=limits)
        return found, tried

    found, tried = searched(Limits(searches_end=time.monotonic() - 1))
    assert sorted(tried) == sorted(names)
    assert found == {name: RECIPES[name].start(split.train) for name in names}
    _, tried = searched(UNLIMITED)
    assert all(tried.count(name) > 1 for name in names)
