"""Softmax losses over items: over all of them, fused with its gradient, or over a shared sample, corrected."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ROWS = 512
"""Rows scored at once: the scores of a few thousand items then stay in the processor's cache."""


class _FullSoftmax(torch.autograd.Function):
    """Mean cross-entropy over all items. The gradient is made on the way, so no table of scores is ever kept."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        count = len(targets)
        by_vector, by_item = torch.empty_like(vectors), torch.zeros_like(items)
        total = vectors.new_zeros(())
        for start in range(0, count, _ROWS):
            rows, wanted = vectors[start : start + _ROWS], targets[start : start + _ROWS, None]
            scores = rows @ items.T
            largest = scores.amax(1, keepdim=True)
            own = scores.gather(1, wanted)
            scores.sub_(largest).exp_()
            sums = scores.sum(1, keepdim=True)
            total += (sums.log() + largest - own).sum()
            scores.mul_(1.0 / (sums * count))
            scores.scatter_add_(1, wanted, scores.new_full((len(rows), 1), -1.0 / count))
            torch.mm(scores, items, out=by_vector[start : start + _ROWS])
            by_item.addmm_(scores.T, rows)
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
