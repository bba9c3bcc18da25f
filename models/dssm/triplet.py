"""Two-tower models trained by triplets: what a user read shall lie nearer to them than what was drawn at random.

`residual`: one-hot features through two ELU layers with a bridge over the second, history as shares through one more;
items by their features alone; no offsets anywhere. `bag`: the mean of up to 30 items against genres and popularity.
Both are compared by Euclidean distance.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from models.dssm.config import Config
from models.dssm.network import Shape, SparseLinear
from models.dssm.windows import Histories

SHRINKAGE = 1e-6
"""Of weights and of what layers give, in the `residual` towers."""
GENRES = 32
"""Width that item features are brought to, in the `bag` towers."""


class ResidualItems(nn.Module):
    """Item rows int64 (n,) to vectors float32 (n, dim), by their features alone."""

    def __init__(self, features: sp.csr_matrix, config: Config) -> None:
        super().__init__()
        self.first = SparseLinear(features, config.dim)
        self.second = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        self.given: list[torch.Tensor] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Make vectors of items by row; `given` then holds what each layer gave."""
        first = nn.functional.elu(self.first(rows))
        second = nn.functional.elu(self.second(first))
        vectors: torch.Tensor = self.out(first + second)
        self.given = [first, second, vectors]
        return vectors


class ResidualUsers(nn.Module):
    """Features and the shares of items in a history to vectors float32 (n, dim)."""

    def __init__(self, shape: Shape, config: Config) -> None:
        super().__init__()
        self.items = nn.Embedding(shape.n_items, config.dim)
        nn.init.xavier_uniform_(self.items.weight)
        features = shape.n_user_features
        self.features = nn.Linear(features, config.dim, bias=False) if features else None
        self.second = nn.Linear(config.dim, config.dim, bias=False)
        self.out = nn.Linear(2 * config.dim, config.dim, bias=False)
        self.given: list[torch.Tensor] = []

    def of_many(self, history: torch.Tensor, features: torch.Tensor, _users: torch.Tensor) -> torch.Tensor:
        """Vectors of many users: history int64 (m, n), rows plus one, 0 for none; features (m, n_features)."""
        return self.forward(history, features)

    def forward(self, history: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Vectors float32 (m, dim). A dense layer over shares of a history is the mean of its items' rows."""
        read = nn.functional.elu(mean_of(self.items, history))
        known = (
            torch.zeros_like(read) if self.features is None else nn.functional.elu(self.features(features))
        )
        second = nn.functional.elu(self.second(known))
        vectors: torch.Tensor = self.out(torch.cat([known + second, read], dim=1))
        self.given = [read, known, second, vectors]
        return vectors

    def served(self, rows: torch.Tensor) -> ResidualUsers:
        """Copy it for histories of positions in `rows`, plus one."""
        return _with_items(self, rows)


class BagItems(nn.Module):
    """Item rows to vectors: features through a linear layer to GENRES, with popularity beside them."""

    def __init__(self, features: sp.csr_matrix, popularity: torch.Tensor, config: Config) -> None:
        super().__init__()
        self.genres = SparseLinear(features, GENRES)
        self.out = nn.Linear(GENRES + 1, config.dim)
        self.popularity = popularity
        self.given: list[torch.Tensor] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Make vectors of items by row."""
        vectors: torch.Tensor = self.out(torch.cat([self.genres(rows), self.popularity[rows, None]], dim=1))
        return vectors


class BagUsers(nn.Module):
    """The mean of a history's embeddings is the vector; features are not read."""

    def __init__(self, shape: Shape, config: Config) -> None:
        super().__init__()
        self.items = nn.Embedding(shape.n_items, config.dim)
        self.nobody = nn.Parameter(torch.zeros(config.dim))
        self.features = None
        self.given: list[torch.Tensor] = []

    def of_many(self, history: torch.Tensor, features: torch.Tensor, _users: torch.Tensor) -> torch.Tensor:
        """Vectors of many users, as `forward` gives them."""
        return self.forward(history, features)

    def forward(self, history: torch.Tensor, _features: torch.Tensor) -> torch.Tensor:
        """Vectors float32 (m, dim) of histories int64 (m, n): means, `nobody` where there is nothing."""
        nothing = (history != 0).sum(dim=1, keepdim=True) == 0
        return mean_of(self.items, history) + nothing * self.nobody

    def served(self, rows: torch.Tensor) -> BagUsers:
        """Copy it for histories of positions in `rows`, plus one."""
        return _with_items(self, rows)


def mean_of(items: nn.Embedding, history: torch.Tensor) -> torch.Tensor:
    """Mean of a history's rows: history int64 (m, n), rows plus one, 0 for none; zeros where there is nothing."""
    there = (history != 0)[:, :, None]
    found = (items((history - 1).clamp(min=0)) * there).sum(dim=1)
    return found / there.sum(dim=1).clamp(min=1)


T = TypeVar("T", ResidualUsers, BagUsers)


def _with_items(tower: T, rows: torch.Tensor) -> T:
    served = copy.deepcopy(tower)
    served.given = []
    served.items = nn.Embedding(
        len(rows), tower.items.embedding_dim, _weight=tower.items.weight.detach()[rows]
    )
    return served


@dataclass(frozen=True, slots=True)
class Triples:
    """Users int64 (b,), history (b, length), positives (b,), negatives (b, n): rows; history's plus one, 0 none."""

    users: npt.NDArray[np.int64]
    history: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]


class Draws:
    """One epoch: batches of users drawn evenly, an item of each one's history, and items drawn evenly from `rows`.

    In the `bag` towers the item drawn is left out of the history that is read.
    """

    def __init__(
        self,
        histories: Histories,
        rows: npt.NDArray[np.int64],
        config: Config,
        generator: np.random.Generator,
    ) -> None:
        self._histories, self._rows, self._config, self._generator = histories, rows, config, generator
        self._active = np.flatnonzero(histories.lengths())

    def __len__(self) -> int:
        if self._config.steps is not None:
            return self._config.steps
        return max(1, len(self._histories.items) // self._config.batch)

    def __iter__(self) -> Iterator[Triples]:
        lengths, config = self._histories.lengths(), self._config
        for _ in range(len(self)):
            users = self._generator.choice(self._active, config.batch)
            places = self._histories.indptr[users] + self._generator.integers(0, lengths[users])
            positives = self._histories.items[places].astype(np.int64)
            reach = min(config.history_length + (config.architecture == "bag"), int(lengths[users].max()))
            history = self._histories.latest(users, reach)
            if config.architecture == "bag":
                history = np.where(history == positives[:, None] + 1, 0, history)
            hidden = self._generator.random(len(users)) < config.history_dropout
            history[hidden] = 0
            negatives = self._generator.choice(self._rows, (len(users), max(config.negatives, 1)))
            yield Triples(users, history, positives, negatives)


class TripletLoss:
    """Mean over triples of max(d(user, positive) - d(user, negative) + margin, 0), d or its square (`residual`)."""

    def __init__(
        self,
        users: ResidualUsers | BagUsers,
        items: ResidualItems | BagItems,
        features: torch.Tensor,
        config: Config,
    ) -> None:
        self._users, self._items, self._features, self._config = users, items, features, config

    def __call__(self, triples: Triples) -> torch.Tensor:
        """Of one batch, with what shrinks weights and activities."""
        users = torch.from_numpy(triples.users)
        vectors = self._users.of_many(torch.from_numpy(triples.history), self._features[users], users)
        rows = np.concatenate([triples.positives[:, None], triples.negatives], axis=1)
        items = self._items(torch.from_numpy(rows.ravel())).view(*rows.shape, -1)
        distances = ((vectors[:, None, :] - items) ** 2).sum(dim=2)
        if self._config.architecture == "bag":
            distances = torch.sqrt(distances + 1e-12)
        loss = torch.relu(distances[:, :1] - distances[:, 1:] + self._config.margin).mean()
        return loss + self._shrinkage() if self._config.architecture == "residual" else loss

    def _shrinkage(self) -> torch.Tensor:
        towers = (self._users, self._items)
        weights = torch.stack([(value**2).sum() for tower in towers for value in tower.parameters()])
        given = torch.stack([(value**2).sum() / len(value) for tower in towers for value in tower.given])
        return SHRINKAGE * (weights.sum() + given.sum())
