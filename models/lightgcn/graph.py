"""The graph of who read what, and the one linear step that LightGCN takes over it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

Vectors = npt.NDArray[np.float32]


class Graph:
    """A bipartite graph, each edge divided by the roots of both ends' degrees (He et al., SIGIR 2020, eq. 3)."""

    def __init__(self, pairs: sp.csr_matrix, layers: int) -> None:
        """Take binary CSR (n_users, n_items)."""
        by_user, by_item = (
            1.0 / np.sqrt(np.maximum(np.asarray(pairs.sum(axis=axis)).ravel(), 1.0)) for axis in (1, 0)
        )
        normalised = sp.diags(by_user.astype(np.float32)) @ pairs @ sp.diags(by_item.astype(np.float32))
        self._to_users = normalised.tocsr().astype(np.float32)
        self._to_items = normalised.T.tocsr().astype(np.float32)
        self._layers = layers
        self.n_users, self.n_items = pairs.shape

    def smoothed(self, vectors: Vectors) -> Vectors:
        """Mean over the layers 0 to `layers` of vectors carried along the edges so often; users first, then items.

        A symmetric linear map of float32 (n_users + n_items, dim): its own gradient.
        """
        users, items = vectors[: self.n_users], vectors[self.n_users :]
        total = vectors.copy()
        for _ in range(self._layers):
            users, items = self._to_users @ items, self._to_items @ users
            total[: self.n_users] += users
            total[self.n_users :] += items
        total /= self._layers + 1
        return total

    def spectral_start(self, dim: int, *, seed: int) -> Vectors:
        """float32 (n_users + n_items, dim): singular vectors of the graph, times the roots of their values.

        What repeated smoothing tends to, so training begins near its end. Mean squared norm of an item: 1. Noise
        stands in for dimensions that the graph doesn't have.
        """
        generator = np.random.default_rng(seed)
        vectors = generator.normal(0, 1e-2 / np.sqrt(dim), (self.n_users + self.n_items, dim))
        rank = min(dim, self.n_users - 1, self.n_items - 1)
        if rank >= 1:
            start = generator.random(min(self.n_users, self.n_items))
            left, values, right = svds(self._to_users, rank, v0=start)
            signs = np.sign(right[np.arange(rank), np.abs(right).argmax(axis=1)])
            scale = signs * np.sqrt(np.maximum(values, 0.0))
            vectors[: self.n_users, :rank] += left * scale * np.sqrt(self.n_users / self.n_items)
            vectors[self.n_users :, :rank] += right.T * scale
        norms = np.einsum("nd,nd->n", vectors[self.n_users :], vectors[self.n_users :])
        scaled: Vectors = (vectors / np.sqrt(norms.mean())).astype(np.float32)
        return scaled


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        return torch.from_numpy(graph.smoothed(vectors.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.graph.smoothed(np.ascontiguousarray(gradients[0].numpy()))), None


def smoothed(vectors: Tensor, graph: Graph) -> Tensor:
    """`Graph.smoothed` that gradients flow through."""
    found: Tensor = _Smoothed.apply(vectors, graph)  # type: ignore[no-untyped-call] # torch declares none
    return found
