"""Settings of NeuMF. Reads without torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from models.data.dataset import Dataset
from service.errors import InputError

MAX_CELLS = 200_000_000
"""Users times items: each cell is scored once to make the lists."""


@dataclass(frozen=True, slots=True)
class Config:
    """Size, loss and steps. Layers are `2 * half`, `half`, `half / 2`, `half / 4` wide: 64, 32, 16, 8 by default."""

    factors: int = 32
    """Of the product (GMF)."""
    half: int = 32
    """Width of a user's, and of an item's, vector in the layers (MLP)."""
    negatives: int = 4
    """Items drawn evenly, read or not, for each read one."""
    learning_rate: float = 0.002
    batch: int = 4096
    listed: int = 200
    """Best unread items kept of each user."""
    max_epochs: int = 30
    patience: int = 3
    max_seconds: float = 600.0


def lacks(dataset: Dataset) -> str | None:
    """Say what is missing to train here; None where nothing is."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: make setup-train"
    cells = dataset.n_users * dataset.n_items
    return (
        None
        if cells <= MAX_CELLS
        else f"{cells} pairs of user and item; NeuMF's lists take up to {MAX_CELLS}"
    )


def refuse_impossible(dataset: Dataset, config: Config) -> None:
    """Raise InputError where something is missing or a setting is out of range."""
    if reason := lacks(dataset):
        raise InputError(f"NeuMF can't be trained here: {reason}; leave it out of --models")
    if len(dataset) == 0:
        raise InputError("NeuMF has nothing to learn from: no events")
    sizes = (
        config.factors,
        config.negatives,
        config.batch,
        config.listed,
        config.max_epochs,
        config.patience,
    )
    if min(sizes) < 1 or config.half < 4:
        raise InputError(
            f"NeuMF needs factors, negatives, batch, listed, max_epochs, patience >= 1 and half >= 4, got {config}"
        )
    if not (config.learning_rate > 0 and config.max_seconds > 0):
        raise InputError(f"NeuMF needs learning_rate, max_seconds > 0, got {config}")
