"""The sequence encoder: a history of items becomes one vector for every place in it.

Two kinds of block share everything else. `attention` is the self-attention block of SASRec (Kang & McAuley, ICDM
2018) in pre-norm form. `gated` is that of HSTU (Zhai et al., ICML 2024): pointwise SiLU attention without a softmax,
normalised after the sum and gated, with no feed-forward part. Both know order by a learned bias for the distance
between two places alone, so a place means the same wherever in a history it stands and nothing needs padding.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Block = Literal["attention", "gated"]
START = 0
"""The token of an empty history; an item's token is its position plus one."""
HIDDEN = -1e9
"""Score of a place that may not be seen."""


class Encoder(nn.Module):
    """Item tokens in, vectors out. Item embeddings are both what is read and what a vector is compared with."""

    def __init__(
        self, n_items: int, *, dim: int, blocks: int, heads: int, length: int, dropout: float, block: Block
    ) -> None:
        super().__init__()
        self.dim, self.length = dim, length
        self.embedding = nn.Embedding(n_items + 1, dim)
        nn.init.normal_(self.embedding.weight, std=1.0 / math.sqrt(dim))
        made = AttentionBlock if block == "attention" else GatedBlock
        self.blocks = nn.ModuleList(made(dim, heads, length, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (b, n), oldest first, to float32 (b, n, dim): what is expected after each place.

        A place sees itself and what is before it. START is seen by itself alone; zeros at the end of a row pad it.
        """
        n = tokens.shape[1]
        places = torch.arange(n, device=tokens.device)
        distance = places[:, None] - places[None, :]
        itself = distance == 0
        seen = ((distance > 0) & (tokens != START)[:, None, :]) | itself
        hidden = self.dropout(self.embedding(tokens) * math.sqrt(self.dim))
        for block in self.blocks:
            hidden = block(hidden, distance.clamp(0, self.length - 1), seen[:, None])
        normed: Tensor = self.norm(hidden)
        return normed

    def item_vectors(self) -> Tensor:
        """Embeddings without START: float32 (n_items, dim)."""
        return self.embedding.weight[1:]


class AttentionBlock(nn.Module):
    """Causal self-attention and a feed-forward part, each behind a norm and beside the residual."""

    def __init__(self, dim: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inward, self.outward = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.bias = nn.Parameter(falling_bias(heads, length))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, distance: Tensor, seen: Tensor) -> Tensor:
        """float32 (b, n, dim) to the same shape."""
        batch, n, dim = hidden.shape
        query, key, value = (
            self.inward(self.first(hidden))
            .view(batch, n, 3, self.heads, dim // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        scores = (query / math.sqrt(dim // self.heads)) @ key.transpose(-1, -2) + self.bias[:, distance]
        weights = scores.masked_fill(~seen, HIDDEN).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, n, dim)
        hidden = hidden + self.dropout(self.outward(mixed))
        widened = functional.relu(self.wide(self.second(hidden)))
        return hidden + self.dropout(self.narrow(widened))


class GatedBlock(nn.Module):
    """Pointwise attention: every weight is a SiLU of its own score, and none takes from another."""

    def __init__(self, dim: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inward, self.outward = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(falling_bias(heads, length))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, distance: Tensor, seen: Tensor) -> Tensor:
        """float32 (b, n, dim) to the same shape."""
        batch, n, dim = hidden.shape
        parts = functional.silu(self.inward(self.first(hidden)))
        gate = parts[..., :dim]
        query, key, value = (
            parts[..., dim:].view(batch, n, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        )
        scores = (query / math.sqrt(dim // self.heads)) @ key.transpose(-1, -2) + self.bias[:, distance]
        weights = functional.silu(scores).masked_fill(~seen, 0.0)
        mixed = (weights @ (value / self.length)).transpose(1, 2).reshape(batch, n, dim)
        mixed = self.second(mixed) * gate
        return hidden + self.outward(self.dropout(mixed))


def falling_bias(heads: int, length: int) -> Tensor:
    """float32 (heads, length): what a key's distance adds to its score before anything is learned.

    Falls with the logarithm of the distance, at another rate for every head, so that near places count from the
    first step on.
    """
    rates = torch.linspace(0.0, 2.0, heads) if heads > 1 else torch.tensor([1.0])
    return -rates[:, None] * torch.log1p(torch.arange(length, dtype=torch.float32))[None, :]
