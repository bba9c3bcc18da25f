"""Settings of LightGCN. Reads without torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.data.dataset import Dataset
from service.errors import InputError

MAX_SCORED_ITEMS = 50_000
"""The softmax compares each user with all items; beyond this BPR is the loss to take."""


@dataclass(frozen=True, slots=True)
class Config:
    """Size, loss and steps. An epoch is `steps` steps, each of all that some users read, or of some pairs."""

    dim: int = 64
    layers: int = 3
    """How far a vector reaches: over so many edges of the graph."""
    loss: Literal["softmax", "bpr"] = "softmax"
    """softmax: the read item among all. bpr: the read item against one drawn (Rendle et al., UAI 2009)."""
    learning_rate: float = 0.03
    regularization: float = 1e-6
    """Times the squared norm of the first vectors of a step's users and items, a pair."""
    users: int = 8_192
    """Of a step by softmax, with all that they read."""
    pairs: int = 16_384
    """Of a step by BPR."""
    steps: int = 20
    max_epochs: int = 30
    patience: int = 3
    max_seconds: float = 300.0


def lacks(dataset: Dataset) -> str | None:
    """Say what is missing to train here; None where nothing is. Order is not needed."""
    del dataset
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: make setup-train"
    return None


def start_of(dataset: Dataset) -> Config:
    """Settings that fit the data's shape."""
    many = len(np.unique(dataset.item_rows)) > MAX_SCORED_ITEMS
    return Config(loss="bpr" if many else "softmax")


def refuse_impossible(dataset: Dataset, config: Config) -> None:
    """Raise InputError where something is missing or a setting is out of range."""
    if reason := lacks(dataset):
        raise InputError(f"LightGCN can't be trained here: {reason}; leave it out of --models")
    if len(dataset) == 0:
        raise InputError("LightGCN has nothing to learn from: no events")
    counts = (config.dim, config.users, config.pairs, config.steps, config.max_epochs, config.patience)
    if min(counts) < 1:
        raise InputError(
            f"LightGCN needs dim, users, pairs, steps, max_epochs and patience >= 1, got {config}"
        )
    if not 1 <= config.layers <= 8:
        raise InputError(f"LightGCN needs layers from 1 to 8, got {config}")
    if not (config.learning_rate > 0 and config.regularization >= 0 and config.max_seconds > 0):
        raise InputError(
            f"LightGCN needs learning_rate, max_seconds > 0 and regularization >= 0, got {config}"
        )
