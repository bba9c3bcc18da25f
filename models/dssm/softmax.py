"""Sampled softmax over the items of the batch, uniform ones and hard ones, corrected for how they were drawn.

An item's score is lowered by the log of the probability that it is among the candidates, or those that are often in a
batch would be punished for it (Bengio & Senécal 2008; for batches of two towers Yi et al., RecSys 2019; with uniform
items mixed in Yang et al., WWW 2020).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from models.dssm.config import Config
from models.dssm.network import ItemTower, UserTower
from models.dssm.windows import Batch

_POOL = 4_096
"""Items that hard negatives of one batch are sought among."""


class Softmax:
    """The loss of batches. frequencies: float64 (n_items,), events of each item."""

    def __init__(
        self,
        users: UserTower,
        items: ItemTower,
        features: torch.Tensor,
        frequencies: npt.NDArray[np.float64],
        config: Config,
    ) -> None:
        self._users, self._items, self._features, self._config = users, items, features, config
        self._shares = frequencies / max(frequencies.sum(), 1.0)
        self._trained = np.flatnonzero(frequencies)
        self._all = config.negatives >= len(self._trained)
        self._generator = np.random.default_rng(0)
        self._table: torch.Tensor | None = None

    def begin(self, generator: np.random.Generator) -> None:
        """Start an epoch: its randomness, and items' vectors as they are now, to seek hard ones by."""
        self._generator = generator
        if self._config.hard_negatives:
            with torch.no_grad():
                self._table = self._items(torch.arange(len(self._shares)))

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of telling each example's item from the candidates."""
        examples = np.flatnonzero(batch.targets.ravel() >= 0)
        targets = batch.targets.ravel()[examples]
        rows = examples // batch.targets.shape[1]
        vectors = self._user_vectors(batch, examples, rows)
        candidates, log_odds = self._candidates(targets)
        scores = vectors @ self._items(torch.from_numpy(candidates)).T / self._config.temperature - log_odds
        own = torch.from_numpy(np.searchsorted(candidates, targets))
        known = _members(candidates, batch.window - 1)[rows]
        known[torch.arange(len(own)), own] = False
        scores = scores.masked_fill(known, -torch.inf)
        if self._config.hard_negatives:
            scores = torch.cat([scores, self._hard(vectors, batch, rows, targets)], dim=1)
        return torch.nn.functional.cross_entropy(scores, own)

    def _user_vectors(
        self, batch: Batch, examples: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        window = torch.from_numpy(batch.window)
        k, c = batch.targets.shape
        ages = _ages(self._config.history_length, c)
        weights = torch.exp(self._users.fading)[:, ages.clamp(0, self._config.history_length - 1)]
        weights = weights * ((ages >= 0) & (ages < self._config.history_length))
        weights = weights[None] * (window != 0)[:, None, None, :]
        means = self._users.means(weights.flatten(1, 2), self._users.items(window))
        means = means.view(k, -1, c, means.shape[-1]).transpose(1, 2).flatten(2).flatten(0, 1)[examples]
        if self._config.history_dropout:
            means = means * (torch.rand(len(examples), 1) >= self._config.history_dropout)
        users = torch.from_numpy(batch.users[rows])
        return self._users.finished(means, self._features[users], users)

    def _candidates(self, targets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], torch.Tensor]:
        """Rows of the items to choose from, ascending, and the log of how likely each was to be among them."""
        if self._all:
            return self._trained, torch.zeros(len(self._trained))
        drawn = self._generator.choice(self._trained, self._config.negatives)
        candidates = np.unique(np.concatenate([targets, drawn]))
        missed = len(targets) * np.log1p(-np.minimum(self._shares[candidates], 1 - 1e-9))
        missed += self._config.negatives * np.log1p(-1.0 / max(len(self._trained), 2))
        return candidates, torch.from_numpy(np.log(-np.expm1(missed)).astype(np.float32))

    def _hard(
        self,
        vectors: torch.Tensor,
        batch: Batch,
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int64],
    ) -> torch.Tensor:
        """Scores float32 (examples, hard_negatives) of the items that now score highest, none of them the user's."""
        assert self._table is not None  # begin() made it
        pool = self._trained
        if len(pool) > _POOL:
            pool = np.sort(self._generator.choice(pool, _POOL, replace=False))
        with torch.no_grad():
            scores = vectors.detach() @ self._table[pool].T
            known = _members(pool, batch.window - 1)[rows]
            place = np.minimum(np.searchsorted(pool, targets), len(pool) - 1)
            known[torch.arange(len(targets)), torch.from_numpy(place)] |= torch.from_numpy(
                pool[place] == targets
            )
            best = scores.masked_fill(known, -torch.inf).topk(
                min(self._config.hard_negatives, len(pool)), dim=1
            )
        chosen, where = np.unique(pool[best.indices.numpy()], return_inverse=True)
        items = self._items(torch.from_numpy(chosen))[torch.from_numpy(where.reshape(best.indices.shape))]
        found = torch.einsum("nd,nhd->nh", vectors, items) / self._config.temperature
        return found.masked_fill(torch.isinf(best.values), -torch.inf)


def _ages(length: int, width: int) -> torch.Tensor:
    """int64 (width, length + width): how many items came between a place of a window and each of its examples."""
    return length + torch.arange(width)[:, None] - 1 - torch.arange(length + width)[None, :]


def _members(candidates: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> torch.Tensor:
    """Mark which candidates, ascending, are among each row's items: bool (k, len(candidates))."""
    places = np.minimum(np.searchsorted(candidates, items), len(candidates) - 1)
    rows, columns = np.nonzero(candidates[places] == items)
    members = torch.zeros((len(items), len(candidates)), dtype=torch.bool)
    members[rows, places[rows, columns]] = True
    return members
