from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import polars as pl
import pytest
import scipy.sparse as sp
from factories import tiny_dataset
from with_torch import torch

from models.build.scoring import exam_of, ndcg
from models.data.dataset import Dataset
from models.data.splits import validation_split
from models.dssm.config import Config
from models.dssm.dssm import train
from models.dssm.network import Shape
from models.dssm.triplet import BagItems, BagUsers, Draws, ResidualItems, ResidualUsers, TripletLoss
from models.dssm.variants import LECTURE, MUSIC
from models.dssm.windows import Histories
from models.history import unique_history
from models.popularity import popularity
from service.errors import InputError


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_the_lectures_towers_have_its_numbers_of_parameters() -> None:
    """8,829 features of items; 16 of users, and 6,141 items that they can have read."""
    items = ResidualItems(sp.csr_matrix((3, 8_829), dtype=np.float32), LECTURE)
    users = ResidualUsers(Shape(6_141, 5, 16), LECTURE)
    assert parameters(items) == 1_162_880
    assert parameters(users) == 837_248
    assert not any("bias" in name for tower in (items, users) for name, _ in tower.named_parameters())


def test_the_music_services_towers_have_their_widths() -> None:
    items = BagItems(sp.csr_matrix((4, 21), dtype=np.float32), torch.rand(4), MUSIC)
    users = BagUsers(Shape(4, 2, 0), MUSIC)
    assert items.genres.weight.shape == (21, 32)
    assert items.out.weight.shape == (64, 33)
    assert users.items.weight.shape == (4, 64)
    assert (
        items(torch.tensor([1, 3])).shape
        == users(torch.zeros(2, 30, dtype=torch.int64), torch.zeros(0)).shape
    )


def test_the_loss_is_the_margin_by_hand() -> None:
    """Squared distances in the one, plain ones in the other."""
    histories = Histories(np.array([0, 2]), np.array([0, 1], np.int32), ordered=True)
    features = sp.identity(3, format="csr", dtype=np.float32)
    for preset in (replace(LECTURE, dim=4, batch=5), replace(MUSIC, dim=4, batch=5)):
        residual = preset.architecture == "residual"
        shape = Shape(3, 1, 0)
        users = ResidualUsers(shape, preset) if residual else BagUsers(shape, preset)
        items = ResidualItems(features, preset) if residual else BagItems(features, torch.rand(3), preset)
        (triples, *_) = Draws(histories, np.arange(3), preset, np.random.default_rng(0))
        found = TripletLoss(users, items, torch.zeros(1, 0), preset)(triples)
        power, total = (2 if residual else 1), 0.0
        for row in range(5):
            u = users(torch.from_numpy(triples.history[row][None]), torch.zeros(1, 0))[0]
            v = items(
                torch.from_numpy(np.concatenate([triples.positives[row : row + 1], triples.negatives[row]]))
            )
            distances = torch.linalg.vector_norm(u - v, dim=1) ** power
            total += float(torch.relu(distances[0] - distances[1:] + 0.4).mean().detach()) / 5
        assert float(found.detach()) == pytest.approx(total, rel=1e-2 if residual else 1e-4)


def test_the_item_to_be_told_is_masked_in_the_bag_and_not_in_the_lecture() -> None:
    histories = Histories(np.array([0, 4, 7]), np.array([0, 1, 2, 3, 4, 5, 6], np.int32), ordered=True)
    for preset, masked in ((MUSIC, True), (LECTURE, False)):
        for triples in list(
            Draws(histories, np.arange(7), replace(preset, steps=3), np.random.default_rng(0))
        ):
            read = (triples.history == triples.positives[:, None] + 1).any(axis=1)
            assert read.all() != masked
            assert read.any() != masked
            assert triples.negatives.shape[1] == (10 if masked else 1)
            assert triples.history.shape[1] == 4


def described(n_users: int = 80) -> Dataset:
    dataset = tiny_dataset(n_users)
    genre = [["left"] if row % 2 == 0 else ["right"] for row in range(dataset.n_items)]
    kind = [f"{'old' if row < 10 else 'new'}" for row in range(dataset.n_items)]
    items = pl.DataFrame(
        {"title": dataset.items["title"] if dataset.items is not None else [], "genres": genre}
    )
    users = pl.DataFrame({"taste": ["even" if row % 2 == 0 else "odd" for row in range(n_users)]})
    return replace(dataset, items=items.with_columns(kind=pl.Series(kind)), users=users)


@pytest.mark.parametrize(
    "preset",
    [
        replace(LECTURE, dim=16, epochs=15, learning_rate=0.01),
        replace(MUSIC, dim=16, epochs=20, learning_rate=0.03),
    ],
    ids=["lecture", "music"],
)
def test_triplets_beat_popularity_and_are_served_by_their_tower(preset: Config) -> None:
    split = validation_split(described())
    exam = exam_of(split.train, split.test, max_users=1_000, seed=0)
    model = train(split.train, preset, seed=1)
    popular = popularity.train(split.train, popularity.Config(), seed=0)
    assert ndcg(model, exam).mean() > ndcg(popular, exam).mean() * 1.2
    assert model.space == "l2"
    indptr, items = unique_history(split.train)
    position = np.full(split.train.n_items, -1, np.int64)
    position[model.arrays["item_rows"]] = np.arange(len(model.arrays["item_rows"]))
    session = onnxruntime.InferenceSession(model.tower)
    for place, user in list(enumerate(model.arrays["user_rows"].tolist()))[:9]:
        given = {"history": position[items[indptr[user] : indptr[user + 1]]][None] + 1}
        if "user_features" in model.arrays:
            given["features"] = model.arrays["user_features"][user][None]
        (vector,) = session.run(["vector"], given)
        np.testing.assert_allclose(vector[0], model.arrays["user_vectors"][place], atol=1e-4)


def test_items_without_features_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="items table"):
        train(replace(tiny_dataset(), items=None), LECTURE)
    with pytest.raises(InputError, match="takes the space l2"):
        train(tiny_dataset(), replace(LECTURE, space="ip"))
    with pytest.raises(InputError, match="takes the space ip or cosine"):
        train(tiny_dataset(), Config(space="l2"))
