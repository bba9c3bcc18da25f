"""Which checkpoint a training may take up."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from models.data.dataset import Dataset
from models.towers.checkpoints import Checkpoint, checkpoint_of


def resumable(name: str, dataset: Dataset, config: Any, seed: int, **indifferent: Any) -> Checkpoint | None:
    """Name the checkpoint of training `config` on these events, where any are kept.

    When to stop is no part of it, so a longer budget goes on where a shorter one ended. config: a dataclass with
    max_epochs, patience and max_seconds. indifferent: further fields that training doesn't read, by any fixed value.
    """
    without_end = replace(config, max_epochs=1, patience=1, max_seconds=1.0, **indifferent)
    digest = hashlib.sha256(dataset.user_rows.tobytes())
    digest.update(dataset.item_rows.tobytes())
    if dataset.times is not None:
        digest.update(dataset.times.tobytes())
    return checkpoint_of(name, without_end, seed, dataset.fingerprint, digest.hexdigest())
