"""Settings of the sequence tower, and what it asks of data. Reads without torch."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.data.dataset import Dataset
from service.errors import InputError

FULL_SOFTMAX_ITEMS = 20_000
"""Up to so many items each place is compared with all of them: no sampling, hence nothing to correct."""
MAX_HISTORY = 1_000


@dataclass(frozen=True, slots=True)
class Config:
    """Size, loss and steps. `max_seconds` is of one training; a build trains twice, to validate and to serve."""

    block: Literal["attention", "gated"] = "attention"
    """attention: SASRec's block. gated: HSTU's (see `models.sequence.encoder`)."""
    dim: int = 64
    blocks: int = 2
    heads: int = 2
    history_length: int = 200
    """Latest items that are read, in training and in serving."""
    dropout: float = 0.1
    negatives: int | None = None
    """Items drawn a step to stand for the catalogue; None: all items, in place of a sample."""
    learning_rate: float = 4e-3
    weight_decay: float = 0.0
    tokens: int = 1024
    """Places a step, over all its histories."""
    spectral: bool = True
    """Start item embeddings from the singular vectors of who is read near whom; False: from noise."""
    max_epochs: int = 60
    patience: int = 3
    max_seconds: float = 600.0


def lacks(dataset: Dataset) -> str | None:
    """Say what is missing to train on this data; None where nothing is."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnx") is None:
        return "torch and onnx are not installed: make setup-train"
    if dataset.times is None:
        return "its events have no order: no time, no position"
    return None


def start_of(dataset: Dataset) -> Config:
    """Settings that fit the data's shape.

    Short histories need no long reach, large catalogues are sampled, and where an item has few events they are to be
    learned slowly and not by heart.
    """
    per_user = np.bincount(dataset.user_rows, minlength=1)
    longest = int(np.quantile(per_user[per_user > 0], 0.99)) if len(dataset) else 1
    length = min(200, max(10, 1 << (longest - 1).bit_length()))
    sampled = len(np.unique(dataset.item_rows)) > FULL_SOFTMAX_ITEMS
    sparse = len(dataset) < 30 * max(len(np.unique(dataset.item_rows)), 1)
    return Config(
        history_length=length,
        negatives=1024 if sampled else None,
        dropout=0.4 if sparse else 0.1,
        learning_rate=1e-3 if sparse else 4e-3,
    )


def refuse_impossible(dataset: Dataset, config: Config) -> None:
    """Raise InputError where the data lacks something or a setting is out of range."""
    if reason := lacks(dataset):
        raise InputError(f"a sequence tower can't be trained here: {reason}; leave it out of --models")
    if len(dataset) == 0:
        raise InputError("a sequence tower has nothing to learn from: no events")
    sizes = (config.dim, config.blocks, config.heads, config.tokens, config.max_epochs, config.patience)
    if min(sizes) < 1 or config.dim % config.heads:
        raise InputError(
            "the sequence tower needs dim, blocks, heads, tokens, max_epochs, patience >= 1 and a dim that its"
            f" heads divide, got {config}"
        )
    if not 1 <= config.history_length <= MAX_HISTORY:
        raise InputError(f"the sequence tower needs a history_length of 1 to {MAX_HISTORY}, got {config}")
    if config.negatives is not None and config.negatives < 1:
        raise InputError(f"the sequence tower needs negatives >= 1, or none set for all items, got {config}")
    if not (0 <= config.dropout < 1 and config.learning_rate > 0 and config.weight_decay >= 0):
        raise InputError(
            f"the sequence tower needs dropout in [0, 1), learning_rate > 0, weight_decay >= 0, got {config}"
        )
    if not (config.max_seconds > 0 and math.isfinite(config.learning_rate)):
        raise InputError(f"the sequence tower needs max_seconds > 0, got {config}")
