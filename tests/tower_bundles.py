"""The tiny data with a model whose user vectors a tower computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
from factories import tiny_dataset, trained_models, write_tiny_bundle

from models.data.dataset import Dataset
from models.history import unique_history
from models.trained import TrainedModel

HISTORY_LENGTH = 5


def tower_model(
    dataset: Dataset, *, history: bool = True, features: bool = True, space: Any = "ip", **settings: Any
) -> TrainedModel:
    """Vectors that a tower of `tests/onnx_files.py` reproduces: even users have features, users with events a vector.

    Item rows stand in falling order, so that neither catalogue nor norm gives the order of the tower's items.
    """
    draw = np.random.default_rng(3)
    dim = 6
    items = draw.normal(0, 1, (dataset.n_items, dim)).astype(np.float32)
    item_rows = np.arange(dataset.n_items - 1, -1, -1, dtype=np.int32)
    place = np.argsort(item_rows)
    told = np.zeros((dataset.n_users, 2), np.float32)
    told[::4, 0] = 1
    told[2::4, 1] = 1
    weights = draw.normal(0, 2, (2, dim)).astype(np.float32)
    indptr, read = unique_history(dataset)
    users, vectors = [], []
    for user in range(dataset.n_users):
        own = read[indptr[user] : indptr[user + 1]][-HISTORY_LENGTH:]
        if len(own):
            vector = items[place[own]].mean(axis=0) * history + told[user] @ weights * features
            if vector.any():
                users.append(user)
                vectors.append(vector)
    arrays = {
        "item_rows": item_rows,
        "item_vectors": items,
        "user_rows": np.array(users, np.int32),
        "user_vectors": np.array(vectors, np.float32),
    }
    if features:
        arrays["user_features"] = told
    return TrainedModel(
        "factors",
        arrays,
        space=space,
        parameters={"tower": {"history_length": HISTORY_LENGTH, **settings}},
        tower=onnx_files.tower(items if history else None, weights if features else None),
    )


def write_tower_bundle(root: Path, model: TrainedModel | None = None, *, publish: bool = True) -> Path:
    """Write (and publish) the tiny bundle with a model `tower` beside the others; returns its folder.

    Users of rows 55.. have no events; of them rows 56 and 58 have features.
    """
    dataset = tiny_dataset()
    models = {**trained_models(dataset), "tower": model or tower_model(dataset)}
    return write_tiny_bundle(
        root, dataset=dataset, models=models, index="none", default_model="tower", publish=publish
    )


def of_other_items(model: TrainedModel) -> TrainedModel:
    """The same with a tower that was trained for the items in another order."""
    return replace(
        model,
        tower=onnx_files.tower(model.arrays["item_vectors"][::-1].copy(), np.eye(2, 6, dtype=np.float32)),
    )
