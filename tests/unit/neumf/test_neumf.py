from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import four_tastes, tiny_dataset
from with_torch import torch

from models.build.assemble import assemble
from models.build.build import chosen_models
from models.build.scoring import exam_of, ndcg
from models.data.splits import Split, leave_last_out
from models.evaluation.run import evaluate_model
from models.neumf.config import Config
from models.neumf.training import NeuMF, train
from models.popularity import popularity
from models.towers.checkpoints import checkpoints_in
from models.trained import TrainedModel
from service.bundle.reader import load_bundle
from service.errors import InputError
from service.recommender.live import go_live

SMALL = Config(factors=8, half=16, learning_rate=0.02, batch=256, listed=20, max_epochs=4)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(four_tastes())


def score(model: TrainedModel, split: Split) -> float:
    return float(ndcg(model, exam_of(split.train, split.test, max_users=1_000, seed=0)).mean())


def test_it_learns_tastes_that_popularity_cannot_and_is_served_as_trained(
    split: Split, tmp_path: Path
) -> None:
    popular = popularity.train(split.train, popularity.Config(), seed=0)
    model = train(split.train, replace(SMALL, max_epochs=25, patience=10), seed=1)
    learned = score(model, split)
    assert score(popular, split) < 0.2
    assert learned > 0.35  # five items are left of a group's ten, and any of them may be next

    models = {"popular": popular, "neumf": model}
    live = go_live(load_bundle(assemble(tmp_path, split.train, models, default_model="popular").path))
    users = split.test.user_ids.take(split.test.user_rows)
    items = split.test.item_ids.take(split.test.item_rows)
    served = evaluate_model(live, "neumf", users, items, k=10)
    assert served.metrics["NDCG@10"] == pytest.approx(learned, abs=1e-4)


def test_layers_halve_and_the_logit_weighs_product_and_layers() -> None:
    network = NeuMF(3, 4, Config())
    shapes = [tuple(layer.weight.shape) for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(32, 64), (16, 32), (8, 16)]
    assert network.weigh.weight.shape == (1, 40)
    users, items = torch.tensor([0, 2]), torch.tensor([1, 3])
    before = network(users, items)
    with torch.no_grad():
        network.user_factors.weight.zero_()
    assert not torch.allclose(before, network(users, items))


def test_lists_hold_the_best_unread_items_of_users_with_events() -> None:
    data = tiny_dataset(60)
    model = train(data, replace(SMALL, max_epochs=1, listed=7), seed=0)
    lengths = np.diff(model.arrays["indptr"])
    assert lengths.tolist() == [7] * 55 + [0] * 5
    owner = np.repeat(np.arange(60), lengths)
    read = data.matrix(binary=True)
    assert not np.asarray(read[owner, model.arrays["items"]]).any()
    falls = np.diff(model.arrays["scores"].reshape(55, 7), axis=1)
    assert (falls <= 0).all()


def test_equal_seeds_train_alike_and_a_resumed_training_ends_as_a_whole_one(
    split: Split, tmp_path: Path
) -> None:
    whole = train(split.train, SMALL, seed=1)
    with checkpoints_in(tmp_path):
        train(split.train, replace(SMALL, max_epochs=2, listed=5), seed=1)
        resumed = train(split.train, SMALL, seed=1)
    other = train(split.train, SMALL, seed=2)
    for name in ("items", "scores"):
        np.testing.assert_array_equal(whole.arrays[name], resumed.arrays[name])
    assert not np.array_equal(whole.arrays["scores"], other.arrays["scores"])


def test_what_it_cannot_do_is_said(split: Split) -> None:
    with pytest.raises(InputError, match="half"):
        train(split.train, replace(SMALL, half=2))
    assert chosen_models(split.train, ["neumf"]) == ["popular", "neumf"]
    assert "neumf" not in chosen_models(split.train, None)
