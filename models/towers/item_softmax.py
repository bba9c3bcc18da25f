"""Softmax losses over items: over all of them, fused with its gradient, or over a shared sample, corrected.

The target of a row is one item, or each of a set of items in turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional

_ROWS = 512
"""Rows scored at once: the scores of a few thousand items then stay in the processor's cache."""
_SAFE = 60.0
"""Scores of at most this size need no maximum taken off: neither e^60 nor a sum of a million of them overflows."""


class _FullSoftmax(torch.autograd.Function):
    """Mean cross-entropy over all items. The gradient is made on the way, so no table of scores is ever kept."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        count = len(targets)
        by_vector, by_item = torch.empty_like(vectors), torch.zeros_like(items)
        total = vectors.new_zeros(())
        small = bool(vectors.norm(dim=1).amax() * items.norm(dim=1).amax() <= _SAFE) if count else True
        table = vectors.new_empty((min(count, _ROWS), len(items)))
        for start in range(0, count, _ROWS):
            rows, wanted = vectors[start : start + _ROWS], targets[start : start + _ROWS, None]
            scores = torch.mm(rows, items.T, out=table[: len(rows)])
            own = scores.gather(1, wanted)
            if not small:
                largest = scores.amax(1, keepdim=True)
                own = own - largest
                scores.sub_(largest)
            sums = scores.exp_().sum(1, keepdim=True)
            total += (sums.log() - own).sum()
            # The gradient, times what each row's shares lack: that is made good on the narrow side of the products.
            scores.scatter_add_(1, wanted, -sums)
            scale = 1.0 / (sums * count)
            torch.mm(scores, items, out=by_vector[start : start + _ROWS]).mul_(scale)
            by_item.addmm_(scores.T, rows * scale)
        ctx.save_for_backward(by_vector, by_item)
        return total / count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        by_vector, by_item = ctx.saved_tensors
        return by_vector * gradients[0], by_item * gradients[0], None


def full_softmax(vectors: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of `targets`, int64 (m,), among all items.

    vectors: float32 (m, dim). items: float32 (n, dim). The same value and gradients as `cross_entropy` of the
    scores, without keeping them.
    """
    loss: Tensor = _FullSoftmax.apply(vectors, items, targets)  # type: ignore[no-untyped-call] # torch declares none
    return loss


class _SetsSoftmax(torch.autograd.Function):
    """Mean cross-entropy of all pairs of a row and one of its items; a row's scores are made once for all of them."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, items: Tensor, sets: sp.csr_matrix) -> Tensor:
        count = max(sets.nnz, 1)
        by_vector, by_item = torch.empty_like(vectors), torch.zeros_like(items)
        total = vectors.new_zeros(())
        table = vectors.new_empty((min(len(vectors), _ROWS), len(items)))
        for start in range(0, len(vectors), _ROWS):
            rows, own = vectors[start : start + _ROWS], sets[start : start + _ROWS]
            sizes = np.diff(own.indptr)
            at = (
                torch.from_numpy(np.repeat(np.arange(len(rows)), sizes)),
                torch.from_numpy(own.indices).long(),
            )
            weights = torch.from_numpy(sizes.astype(np.float32))[:, None]
            scores = torch.mm(rows, items.T, out=table[: len(rows)])
            largest, picked = scores.amax(1, keepdim=True), scores[at].sum()
            sums = scores.sub_(largest).exp_().sum(1, keepdim=True)
            total += (weights * (sums.log() + largest)).sum() - picked
            scores.mul_(weights / (sums * count))
            scores[at] -= 1.0 / count
            torch.mm(scores, items, out=by_vector[start : start + _ROWS])
            by_item.addmm_(scores.T, rows)
        ctx.save_for_backward(by_vector, by_item)
        return total / count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        by_vector, by_item = ctx.saved_tensors
        return by_vector * gradients[0], by_item * gradients[0], None


def sets_softmax(vectors: Tensor, items: Tensor, sets: sp.csr_matrix) -> Tensor:
    """Mean cross-entropy, among all items, of every item in the set of every row.

    vectors: float32 (m, dim). items: float32 (n, dim). sets: binary CSR (m, n). The same value and gradients as
    `full_softmax` of all pairs, at the price of as many rows as there are sets.
    """
    loss: Tensor = _SetsSoftmax.apply(vectors, items, sets)  # type: ignore[no-untyped-call] # torch declares none
    return loss


def sampled_softmax(
    vectors: Tensor, items: Tensor, targets: Tensor, drawn: Tensor, log_expected: Tensor
) -> Tensor:
    """Mean cross-entropy of `targets` among themselves and `drawn`, one sample for all rows.

    drawn: int64 (s,), positions of items. log_expected: float32 (s,), log of how often each is expected in such a
    sample; taking it off a negative's score makes the sum estimate the whole catalogue's (Bengio & Senécal, IEEE
    TNN 2008). A negative that is the row's target is left out.
    """
    own = (vectors * items[targets]).sum(1, keepdim=True)
    scores = vectors @ items[drawn].T - log_expected
    scores = scores.masked_fill(drawn[None, :] == targets[:, None], float("-inf"))
    every = torch.cat([own, scores], dim=1)
    return functional.cross_entropy(every, torch.zeros(len(targets), dtype=torch.long))
