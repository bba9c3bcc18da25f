"""Train LightGCN (He et al., SIGIR 2020): only the first vectors are learned, the graph does the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.build.scoring import ndcg
from models.data.dataset import Dataset
from models.lightgcn.config import Config, refuse_impossible
from models.lightgcn.graph import Graph, smoothed
from models.towers.held_out_items import held_out
from models.towers.item_softmax import sets_softmax
from models.towers.loop import Schedule, fit, seeded
from models.towers.resumable import resumable
from models.trained import TrainedModel

_CLIP_NORM = 1.0


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train: kind `factors`, "ip"; users and items without events have no vector.

    One item of some users is held out while learning (the last, where events have an order), and their mean NDCG@10
    decides when to stop; the vectors returned are smoothed over the whole graph. Raises InputError where torch is
    missing or a setting is out of range.
    """
    refuse_impossible(dataset, config)
    pairs = held_out(dataset, seed=seed)
    graph = Graph(pairs.learned, config.layers)
    network = _FirstVectors(graph, config.dim, seed)
    objective = _Objective(network, graph, pairs.learned, config)

    def validate() -> float:
        return float(ndcg(_model(graph, network, config), pairs.exam).mean())

    course = fit(
        network,
        torch.optim.Adam(network.parameters(), config.learning_rate),
        batches=lambda generator: _Steps(pairs.learned, config, generator),
        loss=objective.of,
        validate=validate if len(pairs.exam) else None,
        schedule=Schedule(config.max_epochs, config.patience, config.max_seconds, clip_norm=_CLIP_NORM),
        seed=seed,
        checkpoint=resumable("lightgcn", dataset, config, seed),
        label="LightGCN",
        progress=progress,
    )
    model = _model(Graph(pairs.whole, config.layers), network, config)
    arrays = {**model.arrays, "item_rows": pairs.item_rows, "user_rows": pairs.user_rows}
    return replace(
        model,
        arrays=arrays,
        training={
            "algorithm": "lightgcn", "seed": seed, **asdict(config), "epochs": course.best_epoch,
            "stopped": course.stopped, "held_out_ndcg": [round(score, 6) for score in course.scores],
        },
    )  # fmt: skip


class _FirstVectors(nn.Module):
    """float32 (n_users + n_items, dim): all that is learned."""

    def __init__(self, graph: Graph, dim: int, seed: int) -> None:
        super().__init__()
        with seeded(seed):
            self.vectors = nn.Parameter(torch.from_numpy(graph.spectral_start(dim, seed=seed)))


class _Objective:
    """Smooth all vectors once a step, then compare the step's users or pairs."""

    def __init__(self, network: _FirstVectors, graph: Graph, learned: sp.csr_matrix, config: Config) -> None:
        self._network, self._graph, self._learned, self._config = network, graph, learned, config

    def of(self, batch: tuple[npt.NDArray[np.int64], ...]) -> Tensor:
        first, n_users = self._network.vectors, self._graph.n_users
        final = smoothed(first, self._graph)
        users, items = final[:n_users], final[n_users:]
        if self._config.loss == "softmax":
            (rows,) = batch
            own = self._learned[rows]
            loss = sets_softmax(users[torch.from_numpy(rows)], items, own)
            # How often a pair's ends are touched, as shares of the pairs.
            of_users, of_items = (np.asarray(own.sum(axis=axis)).ravel() / max(own.nnz, 1) for axis in (1, 0))
            squares = _weighted(first[:n_users][torch.from_numpy(rows)], of_users)
            squares = squares + _weighted(first[n_users:], of_items)
        else:
            drawers, read, drawn = (torch.from_numpy(part) for part in batch)
            margin = (users[drawers] * (items[read] - items[drawn])).sum(1)
            loss = functional.softplus(-margin).mean()
            touched = [first[drawers], first[n_users + read], first[n_users + drawn]]
            squares = torch.stack([part.square().sum() for part in touched]).sum() / len(drawers)
        return loss + self._config.regularization * squares


def _weighted(vectors: Tensor, weights: npt.NDArray[np.float64]) -> Tensor:
    """Weighted sum of squared norms."""
    return vectors.square().sum(1) @ torch.from_numpy(weights.astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Steps:
    """One epoch. By softmax a step is of some users, drawn anew, or of all where they are no more than `users`: then
    its gradient is exact. That matters, because Adam makes the steps of all vectors alike in size, so that vectors of
    which a sample of pairs says little would be moved by its noise alone. By BPR a step is of pairs drawn evenly
    among all, and an item that the user did not read for each.
    """

    learned: sp.csr_matrix
    config: Config
    generator: np.random.Generator

    def __len__(self) -> int:
        return self.config.steps

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int64], ...]]:
        n_users = self.learned.shape[0]
        if self.config.loss == "softmax":
            for _ in range(self.config.steps):
                some = self.generator.permutation(n_users)[: self.config.users]
                yield (np.sort(some).astype(np.int64),)
            return
        owner = np.repeat(np.arange(n_users), np.diff(self.learned.indptr))
        n_items = self.learned.shape[1]
        keys = owner * np.int64(n_items) + self.learned.indices
        for _ in range(self.config.steps):
            at = self.generator.integers(0, len(owner), min(self.config.pairs, len(owner)))
            drawn = self.generator.integers(0, n_items, len(at))
            known = np.isin(owner[at] * np.int64(n_items) + drawn, keys)
            drawn[known] = self.generator.integers(0, n_items, int(known.sum()))
            yield owner[at].astype(np.int64), self.learned.indices[at].astype(np.int64), drawn


def _model(graph: Graph, network: _FirstVectors, config: Config) -> TrainedModel:
    """The smoothed vectors, rows counted among users and items with events."""
    final = graph.smoothed(network.vectors.detach().numpy())
    return TrainedModel(
        kind="factors",
        space="ip",
        arrays={
            "item_rows": np.arange(graph.n_items, dtype=np.int32), "item_vectors": final[graph.n_users :],
            "user_rows": np.arange(graph.n_users, dtype=np.int32), "user_vectors": final[: graph.n_users],
        },
        training=asdict(config),
    )  # fmt: skip
