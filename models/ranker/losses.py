"""Losses that learn an order, of one query: each gives the loss and its gradient with respect to the scores.

scores: float64 (n,), larger is ranked higher. relevance: float64 (n,), larger is better; equal ones are tied.
The libraries in `models.ranker.training` have their own; these are small enough to be read, and to be checked against.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def ranknet(scores: Floats, relevance: Floats) -> tuple[float, Floats]:
    """Cross-entropy of P_ij = sigma(s_i - s_j) over pairs with rel_i > rel_j (RankNet; Burges et al., ICML 2005)."""
    return _pairwise(scores, (relevance[:, None] > relevance[None, :]).astype(np.float64))


def lambdarank(scores: Floats, relevance: Floats, *, k: int | None = None) -> tuple[float, Floats]:
    """RankNet with each pair weighted by |delta NDCG@k|: what swapping the two would change (Burges, 2010).

    Gain 2^rel - 1, discount 1 / log2(1 + place). The weights follow the order of `scores` and are taken as
    constant, so the gradient is exact wherever no two scores are equal. Without anything relevant all is 0.
    """
    n = len(scores)
    k = n if k is None else min(k, n)
    discounts = np.zeros(n)
    discounts[:k] = 1.0 / np.log2(np.arange(2, k + 2))
    gains = np.exp2(relevance) - 1.0
    ideal = float(np.sort(gains)[::-1] @ discounts)
    if ideal <= 0.0:
        return 0.0, np.zeros(n)
    discount = np.empty(n)
    discount[np.argsort(-scores, kind="stable")] = discounts
    change = np.abs((gains[:, None] - gains[None, :]) * (discount[:, None] - discount[None, :])) / ideal
    return _pairwise(scores, change * (relevance[:, None] > relevance[None, :]))


def listnet(scores: Floats, relevance: Floats) -> tuple[float, Floats]:
    """Cross-entropy of the two top-one distributions, softmax(rel) and softmax(s) (ListNet; Cao et al., ICML 2007)."""
    wanted, log_given = np.exp(_log_softmax(relevance)), _log_softmax(scores)
    return float(-(wanted @ log_given)), np.exp(log_given) - wanted


def listmle(scores: Floats, relevance: Floats) -> tuple[float, Floats]:
    """Minus log probability of the order of falling relevance (ListMLE; Xia et al., ICML 2008).

    Among ties the order given counts, so callers who mind shuffle them.
    """
    order = np.argsort(-relevance, kind="stable")
    ordered = scores[order]
    rest = np.logaddexp.accumulate(ordered[::-1])[::-1]  # log of the sum over the places from here on
    # d/ds_i: of every place up to its own, how likely item i was to take it; its own it did take.
    shares = np.exp(ordered[None, :] - rest[:, None])
    gradient = np.empty(len(scores))
    gradient[order] = np.triu(shares).sum(axis=0) - 1.0
    return float((rest - ordered).sum()), gradient


def log_probability(scores: Floats, permutation: npt.NDArray[np.integer]) -> float:
    """Log of prod_j phi(s_j) / sum over k >= j of phi(s_k), phi = exp: Plackett-Luce's probability of an order."""
    ordered = scores[permutation]
    return float((ordered - np.logaddexp.accumulate(ordered[::-1])[::-1]).sum())


def _pairwise(scores: Floats, weights: Floats) -> tuple[float, Floats]:
    """Sum of weights[i, j] * log(1 + exp(s_j - s_i)), and its gradient."""
    behind = scores[None, :] - scores[:, None]
    loss = float((weights * np.logaddexp(0.0, behind)).sum())
    push = weights * np.exp(-np.logaddexp(0.0, -behind))
    return loss, push.sum(axis=0) - push.sum(axis=1)


def _log_softmax(values: Floats) -> Floats:
    log: Floats = values - np.logaddexp.reduce(values)
    return log
