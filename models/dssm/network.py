"""The two towers. A user is their latest items and features; an item is its id, features and words."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from models.dssm.config import Config

FIRST_HALF_LIFE = 1.0
"""Of the head that looks back least; the next ones start four times slower each."""
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True, slots=True)
class Shape:
    """What the towers are built for."""

    n_items: int
    n_users: int
    n_user_features: int


class SparseLinear(nn.Module):
    """A linear layer over sparse feature rows that stay where they are; it is asked for rows by number."""

    def __init__(self, rows: sp.csr_matrix, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max(rows.shape[1], 1), width) / width**0.5)
        self.indptr = rows.indptr.astype(np.int64)
        self.indices = torch.from_numpy(rows.indices.astype(np.int64))
        self.values = torch.from_numpy(rows.data.astype(np.float32))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Project the rows asked for: int64 (m,) to float32 (m, width)."""
        asked = rows.numpy()
        lengths = self.indptr[asked + 1] - self.indptr[asked]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(self.indptr[asked] - offsets[:-1], lengths)
        chosen = torch.from_numpy(places)
        return nn.functional.embedding_bag(
            self.indices[chosen],
            self.weight,
            torch.from_numpy(offsets[:-1]),
            mode="sum",
            per_sample_weights=self.values[chosen],
        )


class ItemTower(nn.Module):
    """Item rows int64 (n,) to vectors float32 (n, dim)."""

    def __init__(self, shape: Shape, features: sp.csr_matrix, trained: torch.Tensor, config: Config) -> None:
        super().__init__()
        self.ids = nn.Embedding(shape.n_items, config.dim)
        nn.init.normal_(self.ids.weight, std=config.dim**-0.5)
        self.content = SparseLinear(features, config.dim) if features.shape[1] else None
        if self.content is not None:  # an item starts as its id alone
            nn.init.zeros_(self.content.weight)
        self.trained = trained
        self._hidden = config.item_dropout
        self._unit = config.space == "cosine"

    def start_from(self, vectors: torch.Tensor) -> None:
        """Set what the ids stand for, (n_items, dim)."""
        with torch.no_grad():
            self.ids.weight.copy_(vectors)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Make vectors of items by row."""
        known = self.trained[rows].float()
        if self.training and self.content is not None:
            known = known * (torch.rand(len(rows)) >= self._hidden)
        vectors = self.ids(rows) * known[:, None]
        if self.content is not None:
            vectors = vectors + self.content(rows)
        return nn.functional.normalize(vectors, dim=1) if self._unit else vectors


class UserTower(nn.Module):
    """Histories and features to vectors float32 (n, dim): what is exported, so it holds nothing of the items' tower.

    A history is one or more positions into the items' vectors plus one, oldest first; 0 is nothing.
    """

    def __init__(self, shape: Shape, trained: torch.Tensor, config: Config) -> None:
        super().__init__()
        d = config.dim
        self.items = nn.Embedding(shape.n_items + 1, d, padding_idx=0)
        self._trained = torch.cat([torch.zeros(1, dtype=torch.bool), trained])
        self.start_from(torch.randn(shape.n_items, d) * d**-0.5)
        ages = torch.arange(config.history_length, dtype=torch.float32)
        rates = torch.tensor([1.0 / (FIRST_HALF_LIFE * 4.0**head) for head in range(config.heads)])
        self.fading = nn.Parameter(-np.log(2.0) * rates[:, None] * ages[None, :])
        self.pooled = nn.Linear(config.heads * d, d)
        with torch.no_grad():
            # At first a user is the plain mean of the heads, and nothing else adds to it.
            self.pooled.weight.copy_(torch.eye(d).repeat(1, config.heads) / config.heads)
        self.hidden = nn.Sequential(
            nn.Linear(config.heads * d + shape.n_user_features, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.out = nn.Linear(config.hidden, d)
        nn.init.zeros_(self.out.weight)
        self.features = nn.Linear(shape.n_user_features, d, bias=False) if shape.n_user_features else None
        if self.features is not None:
            nn.init.zeros_(self.features.weight)
        self.users = nn.Embedding(shape.n_users, d) if config.user_ids else None
        if self.users is not None:
            nn.init.normal_(self.users.weight, std=0.01)
        self.dropout = nn.Dropout(config.dropout)
        self._unit = config.space == "cosine"

    def forward(self, history: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Give one user's vector, float32 (1, dim): history int64 (1, n), features float32 (1, n_features)."""
        ages = torch.arange(history.shape[1] - 1, -1, -1)
        weights = torch.exp(self.fading[:, ages]) * (history != 0)
        return self.finished(self.means(weights[None], self.items(history)).flatten(1), features)

    def of_many(self, history: torch.Tensor, features: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        """Vectors of many users: histories int64 (m, history_length), the latest item last, 0 before the first."""
        weights = torch.exp(self.fading.flip(1)) * (history != 0)[:, None, :]
        return self.finished(self.means(weights, self.items(history)).flatten(1), features, users)

    def start_from(self, vectors: torch.Tensor) -> None:
        """Set what the items of a history stand for, (n_items, dim); items without events stand for nothing."""
        with torch.no_grad():
            self.items.weight[1:] = vectors
            self.items.weight[~self._trained] = 0.0

    def served(self, rows: torch.Tensor) -> UserTower:
        """Copy it for histories of positions in `rows`, plus one."""
        served = copy.deepcopy(self)
        kept = self.items.weight.detach()[torch.cat([torch.zeros(1, dtype=torch.int64), rows + 1])]
        served.items = nn.Embedding(len(kept), self.items.embedding_dim, _weight=kept)
        return served

    def means(self, weights: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Weighted means of items: weights (b, m, n), items (b, n, d) -> (b, m, d); zero where nothing weighs."""
        total = weights.sum(dim=-1, keepdim=True)
        return (weights @ items) / total.clamp(min=LEAST_WEIGHT)

    def finished(
        self, pooled: torch.Tensor, features: torch.Tensor, users: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Turn means (m, heads * d) and features (m, n_features) into vectors (m, dim)."""
        pooled = self.dropout(pooled)
        vectors = self.pooled(pooled) + self.out(self.hidden(torch.cat([pooled, features], dim=1)))
        if self.features is not None:
            vectors = vectors + self.features(features)
        if self.users is not None and users is not None:
            vectors = vectors + self.users(users)
        return nn.functional.normalize(vectors, dim=1) if self._unit else vectors
