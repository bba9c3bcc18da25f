"""Train NeuMF (He et al., WWW 2017) and list each user's best items: its scores are no inner products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.build.scoring import ndcg, top_k
from models.data.dataset import Dataset
from models.neumf.config import Config, refuse_impossible
from models.towers.held_out_items import HeldOut, held_out
from models.towers.loop import Schedule, fit, seeded
from models.towers.resumable import resumable
from models.trained import TrainedModel

_SCORED_AT_ONCE = 1 << 17
"""Pairs."""
_LISTED_IN_EXAM = 10


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train: kind `lists`, the `listed` best items that a user has not read; none for users without events.

    One item of some users is held out (the last, where events have an order), and their mean NDCG@10 decides when to
    stop. Raises InputError where torch is missing, lists would be too long to make or a setting is out of range.
    """
    refuse_impossible(dataset, config)
    pairs = held_out(dataset, seed=seed)
    with seeded(seed):
        network = NeuMF(len(pairs.user_rows), len(pairs.item_rows), config)

    def validate() -> float:
        users = pairs.exam.user_rows
        indptr, items, scores = _lists(network, pairs, users, _LISTED_IN_EXAM)
        among_all = np.zeros(len(pairs.user_rows) + 1, np.int64)
        among_all[users + 1] = np.diff(indptr)
        listed = TrainedModel("lists", {"indptr": np.cumsum(among_all), "items": items, "scores": scores})
        return float(ndcg(listed, pairs.exam).mean())

    course = fit(
        network,
        torch.optim.Adam(network.parameters(), config.learning_rate),
        batches=lambda generator: _Batches(pairs, config, generator),
        loss=network.loss,
        validate=validate if len(pairs.exam) else None,
        schedule=Schedule(config.max_epochs, config.patience, config.max_seconds),
        seed=seed,
        checkpoint=resumable("neumf", dataset, config, seed, listed=1),
        label="NeuMF",
        progress=progress,
    )
    whole = replace(pairs, learned=pairs.whole)
    indptr, items, scores = _lists(network, whole, np.arange(len(pairs.user_rows)), config.listed)
    lengths = np.zeros(dataset.n_users + 1, np.int64)
    lengths[pairs.user_rows + np.int64(1)] = np.diff(indptr)
    return TrainedModel(
        kind="lists",
        arrays={"indptr": np.cumsum(lengths), "items": pairs.item_rows[items], "scores": scores},
        training={
            "algorithm": "neumf", "seed": seed, **asdict(config), "epochs": course.best_epoch,
            "stopped": course.stopped, "held_out_ndcg": [round(score, 6) for score in course.scores],
        },
    )  # fmt: skip


class NeuMF(nn.Module):
    """A product of factors and three layers over both vectors, weighed into one logit."""

    def __init__(self, n_users: int, n_items: int, config: Config) -> None:
        super().__init__()
        half = config.half
        self.user_factors, self.item_factors = (nn.Embedding(n, config.factors) for n in (n_users, n_items))
        self.user_halves, self.item_halves = (nn.Embedding(n, half) for n in (n_users, n_items))
        for table in (self.user_factors, self.item_factors, self.user_halves, self.item_halves):
            nn.init.normal_(table.weight, std=0.1)
        widths = (2 * half, half, half // 2, half // 4)
        self.layers = nn.Sequential(
            *(part for i, o in pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU()))
        )
        self.weigh = nn.Linear(config.factors + half // 4, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Rows int64 (m,) of users and of items to logits float32 (m,)."""
        product = self.user_factors(users) * self.item_factors(items)
        layered = self.layers(torch.cat([self.user_halves(users), self.item_halves(items)], dim=1))
        logits: Tensor = self.weigh(torch.cat([product, layered], dim=1))[:, 0]
        return logits

    def loss(
        self, batch: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]
    ) -> Tensor:
        """Binary cross-entropy of users, items and whether they were read."""
        users, items, read = (torch.from_numpy(part) for part in batch)
        return functional.binary_cross_entropy_with_logits(self(users, items), read)


@dataclass(frozen=True, slots=True)
class _Batches:
    """One epoch: every pair once, in an order drawn anew, each with its negatives."""

    pairs: HeldOut
    config: Config
    generator: np.random.Generator

    def __len__(self) -> int:
        return len(range(0, self.pairs.learned.nnz, self._pairs_a_batch))

    @property
    def _pairs_a_batch(self) -> int:
        return max(1, self.config.batch // (1 + self.config.negatives))

    def __iter__(
        self,
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        learned, negatives = self.pairs.learned, self.config.negatives
        owner = np.repeat(np.arange(learned.shape[0]), np.diff(learned.indptr))
        order = self.generator.permutation(learned.nnz)
        for start in range(0, learned.nnz, self._pairs_a_batch):
            part = order[start : start + self._pairs_a_batch]
            users = np.concatenate([owner[part], np.repeat(owner[part], negatives)]).astype(np.int64)
            drawn = self.generator.integers(0, learned.shape[1], len(part) * negatives)
            items = np.concatenate([learned.indices[part], drawn]).astype(np.int64)
            read = np.zeros(len(users), np.float32)
            read[: len(part)] = 1.0
            yield users, items, read


def _lists(
    network: NeuMF, pairs: HeldOut, users: npt.NDArray[np.int64], most: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """CSR by user: their `most` best items outside `pairs.learned`, best first. indptr, items, scores."""
    n_items = len(pairs.item_rows)
    width = min(most, n_items)
    step = max(1, _SCORED_AT_ONCE // n_items)
    lengths, items, scores = [], [], []
    with torch.no_grad():
        for start in range(0, len(users), step):
            some = users[start : start + step]
            asked = torch.from_numpy(np.repeat(some, n_items))
            answers = (
                network(asked, torch.arange(n_items).repeat(len(some))).numpy().reshape(len(some), n_items)
            )
            known = pairs.learned[some].tocoo()
            answers[known.row, known.col] = -np.inf
            best, values = top_k(answers, width)
            new = np.isfinite(values)
            lengths.append(new.sum(axis=1))
            items.append(best[new])
            scores.append(values[new])
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return indptr, np.concatenate(items).astype(np.int32), np.concatenate(scores).astype(np.float32)
