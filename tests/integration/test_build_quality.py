"""The quality floors on real data that are quick enough to hold on every change."""

from __future__ import annotations

from pathlib import Path

from models.build.assemble import assemble
from models.build.recipes import RECIPES
from models.build.threads import threads_for
from models.build.tune import tune, tuning_split
from models.data.read import read_dataset
from models.data.splits import global_time, validation_split
from models.evaluation.run import Examiner
from service.bundle.reader import load_bundle
from service.recommender.live import go_live

FLOORS = {"popular": 0.24, "als": 0.20, "knn": 0.20, "ease": 0.2263, "transitions": 0.18, "userknn": 0.20}
"""NDCG@10 of the last tenth of time, among users and items that training knows."""


def test_movielens_100k_models_tuned_on_their_own_past_reach_their_floors(
    real_data: Path, tmp_path: Path
) -> None:
    split = global_time(read_dataset(real_data / "movielens-100k"), quantile=0.9, warm=True)
    inner = validation_split(split.train)
    with threads_for(len(split.train)):
        models = {
            name: recipe.train(
                split.train, tune(name, tuning_split(name, split.train, inner), "quick").config, seed=0
            )
            for name, recipe in RECIPES.items()
            if not recipe.on_request
        }
    path = assemble(tmp_path, split.train, models, default_model="als", index="exact").path
    live = go_live(load_bundle(path))
    test = split.test
    users, items = test.user_ids.take(test.user_rows), test.item_ids.take(test.item_rows)
    examiner = Examiner.of(live.bundle, users, items)
    found = {name: examiner.examine(live, name, [10]).metrics["NDCG@10"] for name in models}
    short = {name: (found[name], floor) for name, floor in FLOORS.items() if found[name] < floor}
    assert not short
