from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from factories import four_tastes, tiny_dataset
from with_torch import torch

from models.build.assemble import assemble
from models.build.build import chosen_models
from models.build.scoring import exam_of, ndcg
from models.data.splits import Split, leave_last_out
from models.evaluation.run import evaluate_model
from models.lightgcn.config import Config, start_of
from models.lightgcn.graph import Graph, smoothed
from models.lightgcn.training import train
from models.popularity import popularity
from models.towers.checkpoints import checkpoints_in
from models.trained import TrainedModel
from service.bundle.reader import load_bundle
from service.errors import InputError
from service.recommender.live import go_live

SMALL = Config(dim=8, layers=2, learning_rate=0.05, pairs=256, steps=5, max_epochs=6)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(four_tastes())


def random_pairs(n_users: int = 9, n_items: int = 7) -> sp.csr_matrix:
    return sp.csr_matrix((np.random.default_rng(2).random((n_users, n_items)) < 0.4).astype(np.float32))


def score(model: TrainedModel, split: Split) -> float:
    return float(ndcg(model, exam_of(split.train, split.test, max_users=1_000, seed=0)).mean())


def test_smoothing_is_the_mean_of_the_powers_of_the_normalised_adjacency() -> None:
    pairs = random_pairs()
    n = sum(pairs.shape)
    adjacency = np.zeros((n, n))
    adjacency[:9, 9:] = pairs.toarray()
    adjacency += adjacency.T
    roots = np.sqrt(np.maximum(adjacency.sum(axis=1), 1.0))
    step = adjacency / roots[:, None] / roots[None, :]
    wanted = sum(np.linalg.matrix_power(step, power) for power in range(4)) / 4
    vectors = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)

    np.testing.assert_allclose(Graph(pairs, 3).smoothed(vectors), wanted @ vectors, atol=1e-5)


def test_gradients_flow_through_smoothing() -> None:
    graph = Graph(random_pairs(), 2)
    vectors = torch.randn((16, 3), dtype=torch.float32, requires_grad=True)
    direction, weights = torch.randn((16, 3)), torch.randn((16, 3))
    (gradient,) = torch.autograd.grad((smoothed(vectors, graph) * weights).sum(), vectors)
    with torch.no_grad():  # linear: a finite step is exact
        change = ((smoothed(vectors + direction, graph) - smoothed(vectors, graph)) * weights).sum()
    torch.testing.assert_close((gradient * direction).sum(), change, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_it_learns_tastes_that_popularity_cannot(split: Split, loss: Any) -> None:
    popular = score(popularity.train(split.train, popularity.Config(), seed=0), split)
    learned = score(train(split.train, replace(SMALL, loss=loss), seed=1), split)
    assert popular < 0.2
    assert learned > 0.35  # five items are left of a group's ten, and any of them may be next


def test_it_is_served_as_it_was_trained(split: Split, tmp_path: Path) -> None:
    models = {
        "popular": popularity.train(split.train, popularity.Config(), seed=0),
        "lightgcn": train(split.train, SMALL, seed=1),
    }
    live = go_live(load_bundle(assemble(tmp_path, split.train, models, default_model="popular").path))
    test = split.test
    users, items = test.user_ids.take(test.user_rows), test.item_ids.take(test.item_rows)
    served = evaluate_model(live, "lightgcn", users, items, k=10)
    assert served.metrics["NDCG@10"] == pytest.approx(score(models["lightgcn"], split), abs=1e-4)


def arrays_of(model: TrainedModel) -> list[npt.NDArray[np.float32]]:
    return [model.arrays["item_vectors"], model.arrays["user_vectors"]]


def test_equal_seeds_train_alike_and_a_resumed_training_ends_as_a_whole_one(
    split: Split, tmp_path: Path
) -> None:
    whole = train(split.train, SMALL, seed=1)
    with checkpoints_in(tmp_path):
        train(split.train, replace(SMALL, max_epochs=2), seed=1)
        resumed = train(split.train, SMALL, seed=1)
    other = train(split.train, SMALL, seed=2)
    for one, same, different in zip(arrays_of(whole), arrays_of(resumed), arrays_of(other), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, different)


def test_users_and_items_without_events_have_no_vector() -> None:
    data = tiny_dataset(60)
    model = train(data, replace(SMALL, max_epochs=1), seed=0)
    assert model.arrays["user_rows"].tolist() == list(range(55))
    assert model.arrays["item_rows"].tolist() == np.unique(data.item_rows).tolist()


def test_data_without_order_holds_out_any_item(split: Split) -> None:
    unordered = replace(split.train, times=None, time_kind=None)
    model = train(unordered, SMALL, seed=1)
    assert max(model.training["held_out_ndcg"]) > 0.3


@pytest.mark.parametrize(
    "changes", [{"layers": 0}, {"pairs": 0}, {"learning_rate": 0.0}, {"max_seconds": 0.0}]
)
def test_a_setting_out_of_range_is_named(split: Split, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        train(split.train, replace(SMALL, **changes))


def test_it_is_trained_only_where_named(split: Split) -> None:
    assert "lightgcn" not in chosen_models(split.train, None)
    assert chosen_models(split.train, ["lightgcn"]) == ["popular", "lightgcn"]
    assert start_of(split.train).loss == "softmax"
