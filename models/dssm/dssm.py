"""The two-tower model, as builds know it. Reads without torch: that is imported when training begins."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

from models.data.dataset import Dataset
from models.dssm.config import Config
from models.trained import TrainedModel
from service.errors import InputError

MAX_HISTORY = 1_000
_NEEDED = ("torch", "onnx", "onnxscript")
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        ("dim", "history_length", "heads", "hidden", "horizon", "batch", "max_epochs", "patience"),
        lambda value: value >= 1,
        "1 or more",
    ),
    (
        ("margin", "negatives", "hard_negatives", "text_buckets", "weight_decay"),
        lambda value: value >= 0,
        "0 or more",
    ),
    (("history_dropout", "item_dropout", "dropout"), lambda value: 0 <= value < 1, "in [0, 1)"),
    (("temperature", "learning_rate", "max_seconds"), lambda value: value > 0, "above 0"),
)


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train both towers: kind `factors` in the space of `config`, with the user tower as ONNX.

    Items have a vector if they have events or features; users if they have events. On one thread the same seed, data
    and settings give the same arrays, unless time runs out. Raises InputError where torch is missing, a setting is
    out of range or there is nothing to learn from.
    """
    if reason := lacks(dataset):
        raise InputError(f"the two-tower model can't be trained here: {reason}; leave it out of --models")
    refuse_impossible(config)
    if len(dataset) == 0:
        raise InputError("the two-tower model has nothing to learn from: no events")
    from models.dssm import training  # noqa: PLC0415 - torch is optional, and slow to import

    return training.train(dataset, config, seed=seed, progress=progress)


def lacks(_: Dataset) -> str | None:
    """Say what is missing to train; None where nothing is."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed: make setup-train" if absent else None


def start_of(dataset: Dataset) -> Config:
    """Settings that fit the data's shape: no longer a reach than histories have, fewer items drawn from fewer."""
    per_user = np.bincount(dataset.user_rows, minlength=1)
    longest = int(np.quantile(per_user[per_user > 0], 0.99)) if len(dataset) else 1
    length = min(Config().history_length, max(5, 1 << (longest - 1).bit_length()))
    return Config(history_length=length)


def refuse_impossible(config: Config) -> None:
    """Raise InputError for a setting that is out of range, naming it."""
    for fields, allowed, said in _RANGES:
        for field in fields:
            if not allowed(value := getattr(config, field)):
                raise InputError(f"dssm: {field} must be {said}, got {value}")
    if config.history_length > MAX_HISTORY:
        raise InputError(f"dssm: history_length must be at most {MAX_HISTORY}, got {config.history_length}")
    for field in ("epochs", "steps"):
        value = getattr(config, field)
        if value is not None and value < 1:
            raise InputError(f"dssm: {field} must be 1 or more, got {value}")
    triplets = config.architecture != "recency"
    if triplets != (config.space == "l2"):
        raise InputError(
            f"dssm: architecture {config.architecture!r} takes the space {'l2' if triplets else 'ip or cosine'}, "
            f"got {config.space!r}"
        )
    if triplets and config.user_ids:
        raise InputError(f"dssm: architecture {config.architecture!r} knows no user_ids")
