"""Put the towers together: the networks, the loss and the batches that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.dssm.config import Config
from models.dssm.inputs import Features
from models.dssm.network import ItemTower, Shape, UserTower
from models.dssm.softmax import Softmax
from models.dssm.start import spectral_start
from models.dssm.triplet import BagItems, BagUsers, Draws, ResidualItems, ResidualUsers, TripletLoss
from models.dssm.windows import Histories, Windows
from models.towers.loop import seeded
from service.errors import InputError


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the towers read. profiles: float32 (n_users, n_features), the features of users."""

    histories: Histories
    profiles: torch.Tensor
    profile_names: tuple[str, ...]
    items: Features

    @property
    def n_items(self) -> int:
        """Items known by id."""
        return int(self.items.values.shape[0])


class ForUsers(Protocol):
    """A tower for users."""

    features: nn.Linear | None

    def of_many(self, history: torch.Tensor, features: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        """Vectors float32 (m, dim) of histories int64 (m, length), rows plus one, the latest last."""

    def served(self, rows: torch.Tensor) -> nn.Module:
        """Copy it, for histories of positions in `rows` (int64) plus one."""


class Towers(nn.Module):
    """Both towers, so that they are trained and kept as one."""

    def __init__(self, users: nn.Module, items: nn.Module) -> None:
        super().__init__()
        self.users, self.items = users, items


@dataclass(frozen=True, slots=True)
class Assembly:
    """Fresh towers and how they are trained. item_rows: int32, ascending, those that then have a vector."""

    towers: Towers
    item_rows: npt.NDArray[np.int32]
    batches: Callable[[np.random.Generator], Iterable[Any]]
    loss: Callable[[Any], torch.Tensor]


def put_together(inputs: Inputs, histories: Histories, config: Config, seed: int) -> Assembly:
    """Towers as they start, for these histories. Raises InputError where an architecture lacks features of items."""
    frequencies = np.bincount(histories.items, minlength=inputs.n_items).astype(np.float64)
    described = np.diff(inputs.items.values.indptr) > 0
    shape = Shape(inputs.n_items, len(inputs.profiles), len(inputs.profile_names))
    if config.architecture == "recency":
        rows = np.flatnonzero((frequencies > 0) | described).astype(np.int32)
        return _recency(inputs, histories, frequencies, shape, rows, config, seed)
    if not described.any():
        raise InputError(
            f"dssm: architecture {config.architecture!r} knows items by their features alone, and this data has none; "
            "give it an items table, or leave the architecture at 'recency'"
        )
    users: ResidualUsers | BagUsers
    items: ResidualItems | BagItems
    with seeded(seed):
        if config.architecture == "residual":
            users, items = ResidualUsers(shape, config), ResidualItems(inputs.items.values, config)
        else:
            popularity = torch.from_numpy(
                np.log1p(frequencies) / np.log1p(max(frequencies.max(), 1.0))
            ).float()
            users, items = BagUsers(shape, config), BagItems(inputs.items.values, popularity, config)
    return Assembly(
        Towers(users, items),
        np.flatnonzero(described).astype(np.int32),
        lambda generator: Draws(histories, np.flatnonzero(described), config, generator),
        TripletLoss(users, items, inputs.profiles, config),
    )


def _recency(
    inputs: Inputs,
    histories: Histories,
    frequencies: npt.NDArray[np.float64],
    shape: Shape,
    rows: npt.NDArray[np.int32],
    config: Config,
    seed: int,
) -> Assembly:
    trained = torch.from_numpy(frequencies > 0)
    with seeded(seed):
        users = UserTower(shape, trained, config)
        items = ItemTower(shape, inputs.items.values, trained, config)
    if config.spectral:
        before, after = spectral_start(histories, inputs.n_items, config.dim, seed=seed)
        users.start_from(torch.from_numpy(before))
        items.start_from(torch.from_numpy(after))
    loss = Softmax(users, items, inputs.profiles, frequencies, config)

    def batches(generator: np.random.Generator) -> Windows:
        loss.begin(generator)
        return Windows(histories, config, generator)

    return Assembly(Towers(users, items), rows, batches, loss)
