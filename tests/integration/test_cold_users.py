"""Users of whom only features are known are served better by them than by what everybody reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.build.assemble import assemble
from models.build.tune import tune, tuning_split
from models.data.dataset import Dataset
from models.data.generator import generate
from models.data.read import read_dataset
from models.data.splits import hold_out_users, validation_split
from models.evaluation.run import evaluate_model
from models.popularity import popularity
from models.trained import TrainedModel
from service.bundle.reader import load_bundle
from service.recommender.live import go_live


@pytest.fixture(scope="module")
def audience(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Viewers in KION's schema, whose age and sex say something of their taste."""
    folder = tmp_path_factory.mktemp("kion")
    generate(folder, n_users=6_000, n_items=400, n_interactions=60_000, seed=11)
    return read_dataset(folder)


def test_features_of_new_users_beat_what_everybody_reads(audience: Dataset, tmp_path: Path) -> None:
    new = np.zeros(audience.n_users, bool)
    new[np.random.default_rng(1).permutation(audience.n_users)[:600]] = True
    split = hold_out_users(audience, new)
    train = split.train
    tuned = tune("popular", tuning_split("popular", train, validation_split(train)), "quick").config
    assert tuned.segments
    found = {}
    for name, config in (("segments", tuned), ("everybody", replace(tuned, segments=()))):
        models: dict[str, TrainedModel] = {"popular": popularity.train(train, config)}
        path = assemble(tmp_path / name, train, models, default_model="popular", index="none").path
        users = split.test.user_ids.take(split.test.user_rows)
        items = split.test.item_ids.take(split.test.item_rows)
        found[name] = evaluate_model(go_live(load_bundle(path)), "popular", users, items, k=10)
    gain = found["segments"].metrics["MAP@10"] / found["everybody"].metrics["MAP@10"]
    assert gain >= 1.1
    assert found["segments"].replay.place_shares().keys() <= {"segment_popular", "popular"}
