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
_SPREAD = 1.0
"""Standard deviation, over items, of a user's scores at the start."""
_SAMPLE = 256
"""Users by which it is measured."""


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

        What repeated smoothing tends to, so training begins near its end. Of a size at which smoothed users tell
        their items apart by `_SPREAD`. Noise stands in for dimensions that the graph doesn't have.
        """
        generator = np.random.default_rng(seed)
        rank = min(dim, self.n_users - 1, self.n_items - 1)
        # Smaller than a singular vector's entries by far.
        noise = 1e-2 / np.sqrt(self.n_users + self.n_items)
        vectors = generator.normal(0, noise, (self.n_users + self.n_items, dim)).astype(np.float32)
        if rank >= 1:
            left, values, right = svds(
                self._to_users, rank, v0=generator.random(min(self.n_users, self.n_items))
            )
            signs = np.sign(right[np.arange(rank), np.abs(right).argmax(axis=1)])
            scale = (signs * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
            vectors[: self.n_users, :rank] += left.astype(np.float32) * scale
            vectors[self.n_users :, :rank] += right.T.astype(np.float32) * scale
        smoothed = self.smoothed(vectors)
        some = generator.integers(0, self.n_users, _SAMPLE)
        scores = smoothed[some] @ smoothed[self.n_users :].T
        spread = float(scores.std(axis=1).mean())
        return vectors * np.float32(np.sqrt(_SPREAD / spread)) if spread > 0 else vectors


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
