"""Checkpoints of a training: one safetensors file, replaced as a whole after each epoch. Nothing pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from models.towers.checkpoint_folder import checkpoint_folder, checkpoints_in
from service.errors import InputError

__all__ = ["Checkpoint", "Kept", "State", "checkpoint_of", "checkpoints_in", "snapshot"]

State = dict[str, torch.Tensor]


def checkpoint_of(name: str, *identity: Any) -> Checkpoint | None:
    """Name the checkpoint of a training, where any are kept.

    `identity`: all that its outcome depends on (settings, seed, fingerprints of the data), by `repr`. Trainings
    that differ in it never share a file.
    """
    folder = checkpoint_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(repr((name, *identity)).encode()).hexdigest()
    return Checkpoint(folder / f"{name}-{digest[:16]}.safetensors", digest)


@dataclass(frozen=True, slots=True)
class Kept:
    """A training between two epochs. `best` is empty where nothing is validated: the last state is the best."""

    network: State
    best: State
    optimizer: dict[int, dict[str, Any]]
    losses: list[float]
    scores: list[float]
    best_epoch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file, and the identity of the training that may take it up."""

    path: Path
    identity: str

    def write(self, kept: Kept) -> None:
        """Replace the file: whoever reads sees the old state or the new one, whole."""
        numbers = {
            f"{place}/{name}": value
            for place, entry in kept.optimizer.items()
            for name, value in entry.items()
            if not isinstance(value, torch.Tensor)
        }
        tensors = {f"network/{name}": value for name, value in kept.network.items()}
        tensors |= {f"best/{name}": value for name, value in kept.best.items()}
        tensors |= {
            f"optimizer/{place}/{name}": value.detach().contiguous().clone()
            for place, entry in kept.optimizer.items()
            for name, value in entry.items()
            if isinstance(value, torch.Tensor)
        }
        said = {
            "identity": self.identity, "losses": kept.losses, "scores": kept.scores, "best_epoch": kept.best_epoch,
            "seconds": kept.seconds, "numbers": numbers,
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".partial")
        save_file(tensors, written, {"training": json.dumps(said)})
        written.replace(self.path)

    def read(self) -> Kept | None:
        """Read it; None where there is none. Raises InputError for a file that is no checkpoint of this training."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                said = json.loads((file.metadata() or {})["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise InputError(f"{self.path}: not a checkpoint ({error}); delete it to train anew") from error
        if said.get("identity") != self.identity:
            raise InputError(
                f"{self.path}: a checkpoint of another training (data, settings or seed differ); delete it"
            )
        optimizer: dict[int, dict[str, Any]] = {}
        for name, value in {**_below("optimizer/", tensors), **said["numbers"]}.items():
            place, _, field = name.partition("/")
            optimizer.setdefault(int(place), {})[field] = value
        return Kept(
            _below("network/", tensors),
            _below("best/", tensors),
            optimizer,
            said["losses"],
            said["scores"],
            said["best_epoch"],
            said["seconds"],
        )


def snapshot(network: nn.Module) -> State:
    """Copy all parameters and buffers."""
    return {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> State:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
