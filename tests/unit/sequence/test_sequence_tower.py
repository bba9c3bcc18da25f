from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from factories import read_in_order
from with_torch import torch

from models.build.build import Order, build, chosen_models
from models.build.scoring import exam_of, ndcg
from models.data.dataset import Dataset
from models.data.splits import Split, leave_last_out
from models.history import unique_history
from models.popularity import popularity
from models.sequence.config import Config, start_of
from models.sequence.encoder import Block
from models.sequence.training import train
from models.towers.checkpoints import checkpoints_in
from models.trained import TrainedModel
from service.bundle.reader import load_bundle
from service.errors import InputError

N_ITEMS = 40
SMALL = Config(
    dim=16, blocks=1, heads=2, history_length=8, learning_rate=0.01, tokens=256, max_epochs=4, spectral=False
)


def walks(n_users: int = 150, *, seed: int = 3) -> Dataset:
    """Everybody walks a ring of items by 3, from a place of their own; popular items lie in one part of it."""
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, N_ITEMS // 2, n_users)
    lengths = generator.integers(4, 12, n_users)
    steps = [
        [int(start + 3 * place) % N_ITEMS for place in range(length)]
        for start, length in zip(starts, lengths, strict=True)
    ]
    return read_in_order(steps, N_ITEMS)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(walks())


def score(model: TrainedModel, split: Split) -> float:
    return float(ndcg(model, exam_of(split.train, split.test, max_users=1_000, seed=0)).mean())


@pytest.mark.parametrize("changes", [{}, {"block": "gated"}, {"negatives": 60}, {"spectral": True}], ids=str)
def test_it_learns_what_comes_next_where_popularity_cannot(split: Split, changes: dict[str, Any]) -> None:
    popular = score(popularity.train(split.train, popularity.Config(), seed=0), split)
    learned = score(train(split.train, replace(SMALL, max_epochs=12, **changes), seed=1), split)
    assert popular < 0.5
    assert learned > 0.8


@pytest.mark.parametrize("block", get_args(Block))
def test_the_tower_gives_known_users_their_trained_vector(split: Split, block: Block) -> None:
    model = train(split.train, replace(SMALL, block=block, history_length=5), seed=1)
    assert model.tower is not None
    session = onnxruntime.InferenceSession(model.tower, providers=["CPUExecutionProvider"])
    indptr, items = unique_history(split.train)
    token_of = np.zeros(split.train.n_items, np.int64)
    token_of[model.arrays["item_rows"]] = np.arange(1, len(model.arrays["item_rows"]) + 1)
    length = model.parameters["tower"]["history_length"]

    for user, vector in zip(model.arrays["user_rows"], model.arrays["user_vectors"], strict=True):
        history = token_of[items[indptr[user] : indptr[user + 1]]][-length:]
        (found,) = session.run(["vector"], {"history": history[None]})
        np.testing.assert_allclose(found[0], vector, atol=1e-4)
    (nobody,) = session.run(["vector"], {"history": np.zeros((1, 1), np.int64)})
    assert np.isfinite(nobody).all()


def test_the_empty_history_leads_to_what_people_begin_with(split: Split) -> None:
    model = train(split.train, replace(SMALL, max_epochs=12), seed=1)
    assert model.tower is not None
    session = onnxruntime.InferenceSession(model.tower, providers=["CPUExecutionProvider"])
    (nobody,) = session.run(["vector"], {"history": np.zeros((1, 1), np.int64)})
    best = model.arrays["item_rows"][np.argsort(-(model.arrays["item_vectors"] @ nobody[0]))[:10]]
    assert (best < N_ITEMS // 2).mean() > 0.8  # where `walks` begin


def arrays_of(model: TrainedModel) -> dict[str, npt.NDArray[np.float32]]:
    return {name: model.arrays[name] for name in ("item_vectors", "user_vectors")}


def assert_same(one: TrainedModel, other: TrainedModel) -> None:
    for name, array in arrays_of(one).items():
        np.testing.assert_array_equal(array, other.arrays[name])
    assert one.tower == other.tower
    assert one.training["held_out_ndcg"] == other.training["held_out_ndcg"]


def test_equal_seeds_train_alike_whatever_was_drawn_before(split: Split) -> None:
    first = train(split.train, SMALL, seed=1)
    torch.rand(3)
    assert_same(first, train(split.train, SMALL, seed=1))
    other = train(split.train, SMALL, seed=2)
    assert not np.array_equal(first.arrays["item_vectors"], other.arrays["item_vectors"])


def test_a_longer_training_goes_on_where_a_shorter_one_left_its_checkpoint(
    split: Split, tmp_path: Path
) -> None:
    whole = train(split.train, SMALL, seed=1)
    with checkpoints_in(tmp_path):
        train(split.train, replace(SMALL, max_epochs=2), seed=1)
        resumed = train(split.train, SMALL, seed=1)
        (kept,) = tmp_path.iterdir()
        assert_same(resumed, train(split.train, SMALL, seed=1))  # nothing left to do
        train(split.test, SMALL, seed=1)  # other events: a checkpoint of their own
    assert_same(whole, resumed)
    assert len(list(tmp_path.iterdir())) == 2
    assert kept.suffix == ".safetensors"


def test_few_users_are_learned_from_without_any_held_out() -> None:
    model = train(read_in_order([[0, 1], [1, 2]], 3), replace(SMALL, max_epochs=2), seed=0)
    assert model.training["epochs"] == 2
    assert model.training["held_out_ndcg"] == []
    assert model.arrays["user_rows"].tolist() == [0, 1]


def test_data_without_order_is_refused_by_name(split: Split) -> None:
    unordered = replace(split.train, times=None, time_kind=None)
    with pytest.raises(InputError, match="no order"):
        train(unordered, SMALL)
    with pytest.raises(InputError, match=r"--models sequence: .*no order"):
        chosen_models(unordered, ["sequence"])


@pytest.mark.parametrize(
    "changes", [{"dim": 15}, {"dropout": 1.0}, {"history_length": 0}, {"negatives": 0}, {"max_seconds": 0.0}]
)
def test_a_setting_out_of_range_is_named(split: Split, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        train(split.train, replace(SMALL, **changes))


def test_settings_follow_the_shape_of_the_data(split: Split) -> None:
    start = start_of(split.train)
    assert start.history_length >= 11  # no history is longer
    assert start.history_length <= 16
    assert start.negatives is None


def test_where_items_have_few_events_they_are_learned_slowly_and_not_by_heart() -> None:
    few, many = start_of(walks(80)), start_of(walks(600))
    assert len(walks(80)) < 30 * N_ITEMS < len(walks(600))
    assert few.dropout > many.dropout
    assert few.learning_rate < many.learning_rate


def test_it_is_built_where_it_is_named_and_nowhere_else(tmp_path: Path) -> None:
    dataset = walks()
    assert dataset.times is not None
    assert "sequence" not in chosen_models(dataset, None)
    lines = ["user_id,item_id,pos"]
    lines += [
        f"{user},{item},{place}"
        for user, item, place in zip(dataset.user_rows, dataset.item_rows, dataset.times, strict=True)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("\n".join(lines) + "\n")

    built = build(
        Order(
            tmp_path / "data",
            tmp_path / "artifacts",
            models=("sequence",),
            configs={"sequence": replace(SMALL, max_epochs=10)},
        ),
        progress=False,
    )

    assert built.default_model == "sequence"
    entry = load_bundle(built.path).models["sequence"].entry
    assert entry.parameters["tower"]["history_length"] == SMALL.history_length
    assert entry.training["algorithm"] == "sequence"
