"""Reranking: put the candidates into an order in which the first k are good together, not only one by one.

Candidates stand best first. Every function returns places among them, each at most once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.bundle.reader import Attribute, Bundle
from service.domain import Candidates, ItemRows, Plan, Reranking, Scores
from service.recommender.live import LiveModel
from service.recommender.retrieval import FactorsRetriever

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_LIKENESS = 1.55
_WIDTH = 0.9
_INDEPENDENT = 1e-9
"""Share of an item's own variance that the window must leave unexplained for it to add anything."""
_MIXED = 0.01
"""Share of the wanted proportions in those that a slate is judged by."""
_HISTORY = 500
"""Newest items that calibration reads."""
_FAINTEST = -10.0
"""Logarithm of the least quality beside the best: its square is still far above rounding."""


class Cap:
    """At most `most` places a value. An item counts for each of its values; one without any is never held back."""

    def __init__(self, has: Mask, most: int) -> None:
        """has: bool (n, n_values), whether a candidate has a value."""
        self._has, self._most = has, most
        self._counts = np.zeros(has.shape[1], np.int64)
        self._over: Mask = np.zeros(len(has), np.bool_)

    def take(self, place: int) -> None:
        """Count an item that was chosen."""
        self._counts += self._has[place]
        self._over = np.logical_or.reduce(self._has[:, self._counts >= self._most], axis=1)

    def open(self, left: Mask) -> Mask:
        """Which of those left may be taken; all of them where the cap would let none through."""
        within: Mask = left & ~self._over
        return within if within.any() else left


def mmr(relevance: Floats, cosines: Floats, k: int, weight: float, cap: Cap | None = None) -> list[int]:
    """Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): weight · relevance - (1 - weight) · nearness.

    relevance: float64 (n,), 0 to 1. cosines: float64 (n, n). Nearness is the largest cosine with an item already
    chosen, 0 for the first. Of equals the one that stands first is taken.
    """
    own = weight * relevance
    nearness: Floats | None = None
    left = np.ones(len(own), np.bool_)
    chosen: list[int] = []
    for _ in range(min(k, len(own))):
        gains = own if nearness is None else own - (1.0 - weight) * nearness
        best = _best(gains, left, cap)
        chosen.append(best)
        nearness = cosines[best] if nearness is None else np.maximum(nearness, cosines[best])
    return chosen


def dpp_kernel(quality: Floats, cosines: Floats) -> Floats:
    """float64 (n, n), positive semi-definite: L_ii = s_i², L_ij = 1.55 · s_i s_j · exp(-(1 - cos_ij) / (2 · 0.9²)).

    A factor above 1 makes near items repel more than a plain Gaussian kernel does, and may leave no determinantal
    process: negative eigenvalues are then set to 0, which gives the nearest that is one (Higham, 1988).
    """
    kernel = _LIKENESS * np.exp((cosines - 1.0) / (2 * _WIDTH**2)) * np.outer(quality, quality)
    np.fill_diagonal(kernel, quality**2)
    return psd(kernel)


def psd(kernel: Floats) -> Floats:
    """Nearest positive semi-definite matrix to a symmetric one in the Frobenius norm."""
    values, vectors = np.linalg.eigh(kernel)
    if values[0] >= 0.0:
        return kernel
    repaired: Floats = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return (repaired + repaired.T) / 2


def dpp_greedy(kernel: Floats, k: int, window: int = 10, cap: Cap | None = None) -> list[int]:
    """Greedy determinant: each place takes the item that most enlarges the determinant of the last `window` places.

    kernel: float64 (n, n), positive semi-definite. Cholesky rows grow by one a place (Chen, Zhang & Zhou, NeurIPS
    2018). Where no item is independent of the window any more,
    the window starts anew.
    """
    own = kernel.diagonal()
    left = np.ones(len(own), np.bool_)
    chosen: list[int] = []
    recent: list[int] = []
    rows, variances = _factor(kernel, recent)
    for _ in range(min(k, len(own))):
        may = left if cap is None else cap.open(left)
        if not (variances[may] > _INDEPENDENT * own[may]).any():
            recent = []
            rows, variances = _factor(kernel, recent)
        best = _best(variances, left, cap)
        chosen.append(best)
        recent.append(best)
        if len(recent) < window:
            rows, variances = _grown(kernel, rows, variances, best)
        else:
            recent = recent[len(recent) - window + 1 :]
            rows, variances = _factor(kernel, recent)
    return chosen


def calibrated(
    relevance: Floats, shares: Floats, wanted: Floats, k: int, weight: float, cap: Cap | None = None
) -> list[int]:
    """Greedy calibration (Steck, RecSys 2018): weight · sum of relevance - (1 - weight) · KL(wanted || slate).

    relevance: float64 (n,), 0 to 1. shares: float64 (n, n_values), an item's weight spread over its values; a row sums
    to 1, or to 0 for an item without any. wanted: float64 (n_values,), the history's proportions, sums to 1. Those of
    the slate are mixed with a hundredth of the wanted ones, so that a value it lacks leaves the divergence finite.
    """
    left = np.ones(len(relevance), np.bool_)
    mine, valued = wanted > 0.0, shares.sum(axis=1)
    target, parts = wanted[mine], shares[:, mine]
    held, counted = np.zeros(len(target)), 0.0
    chosen: list[int] = []
    for _ in range(min(k, len(relevance))):
        sizes = np.maximum(counted + valued, 1.0)[:, None]
        slate = (1.0 - _MIXED) * (held + parts) / sizes + _MIXED * target
        divergence = (target * np.log(target / slate)).sum(axis=1)
        best = _best(weight * relevance - (1.0 - weight) * divergence, left, cap)
        chosen.append(best)
        held, counted = held + parts[best], counted + float(valued[best])
    return chosen


def reranked(
    candidates: Candidates, k: int, plan: Plan, model: LiveModel, bundle: Bundle, history: ItemRows
) -> Candidates:
    """Rerank the first k among the plan's n_candidates. All candidates stay: behind those chosen, in their order.

    `history`: the user's item rows, for calibration.
    """
    settings = plan.reranking
    assert settings is not None  # the line asks only where the plan reranks
    pool = min(plan.n_candidates, len(candidates.item_rows))
    rows = candidates.item_rows[:pool]
    chosen = _choose(rows, candidates.scores[:pool], min(k, pool), settings, model, bundle, history)
    rest = np.ones(len(candidates.item_rows), np.bool_)
    rest[chosen] = False
    order = np.concatenate((np.array(chosen, np.int64), np.flatnonzero(rest)))
    return Candidates(
        candidates.item_rows[order], candidates.scores[order], candidates.source, candidates.filtered
    )


def _choose(
    rows: ItemRows,
    scores: Scores,
    k: int,
    settings: Reranking,
    model: LiveModel,
    bundle: Bundle,
    history: ItemRows,
) -> list[int]:
    cap = None
    # A bundle that lacks the attribute suspends the experiment; a plan made otherwise goes without the cap.
    if settings.cap is not None and settings.cap.attribute in bundle.attributes:
        cap = Cap(_values(bundle.attributes[settings.cap.attribute], rows), settings.cap.most)
    if settings.method == "calibrated":
        attribute = bundle.attributes.get(settings.attribute)
        wanted = None if attribute is None else _proportions(attribute, history)
        if attribute is None or wanted is None:  # there is nothing to be calibrated to: as scored
            return mmr(_scaled(scores), np.zeros((len(rows), len(rows))), k, 1.0, cap)
        shares = _shares(attribute, rows)
        return calibrated(_scaled(scores), shares, wanted, k, settings.relevance, cap)
    cosines = cosines_of(rows, model, bundle)
    if settings.method == "mmr":
        return mmr(_scaled(scores), cosines, k, settings.relevance, cap)
    return dpp_greedy(dpp_kernel(_quality(scores, settings.relevance), cosines), k, settings.window, cap)


def cosines_of(rows: ItemRows, model: LiveModel, bundle: Bundle) -> Floats:
    """float64 (n, n): cosines of the items' vectors, where the model has none of their attribute values as 0 and 1."""
    if isinstance(model.retriever, FactorsRetriever):
        vectors = model.data.arrays["item_vectors"][model.retriever.position_of[rows]].astype(np.float64)
    else:
        parts = [_values(attribute, rows) for attribute in bundle.attributes.values()]
        vectors = np.concatenate([np.zeros((len(rows), 1), np.bool_), *parts], axis=1).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0.0, lengths, 1.0)
    cosines: Floats = np.clip(vectors @ vectors.T, -1.0, 1.0)
    return cosines


def _shares(attribute: Attribute, rows: ItemRows) -> Floats:
    """float64 (n, n_values of the attribute): each item's 1, spread evenly over its values; 0 without any."""
    shares = np.zeros((len(rows), len(attribute.values)))
    for place, row in enumerate(rows.tolist()):
        codes = attribute.codes[attribute.indptr[row] : attribute.indptr[row + 1]]
        if len(codes):
            shares[place, codes] = 1.0 / len(codes)
    return shares


def _proportions(attribute: Attribute, history: ItemRows) -> Floats | None:
    """Proportions of an attribute's values in a history, float64 (n_values,), sums to 1; None where it has none."""
    summed: Floats = _shares(attribute, history[-_HISTORY:]).sum(axis=0)
    whole = float(summed.sum())
    return summed / whole if whole > 0.0 else None


def _values(attribute: Attribute, rows: ItemRows) -> Mask:
    """Bool (n, n_values): which of the values among these items each item has."""
    codes = [attribute.codes[attribute.indptr[row] : attribute.indptr[row + 1]] for row in rows.tolist()]
    present, columns = np.unique(np.concatenate([*codes, np.empty(0, np.int32)]), return_inverse=True)
    has = np.zeros((len(rows), len(present)), np.bool_)
    has[np.repeat(np.arange(len(rows)), [len(one) for one in codes]), columns] = True
    return has


def _scaled(scores: Scores) -> Floats:
    """float64 (n,): 0 for the pool's lowest score, 1 for its highest; all 1 where they don't differ."""
    wide = scores.astype(np.float64)
    span = float(np.ptp(wide)) if len(wide) else 0.0
    return (wide - wide.min()) / span if 0.0 < span < np.inf else np.ones(len(wide))


def _quality(scores: Scores, weight: float) -> Floats:
    """float64 (n,), 1 for the best: exp(a z), z in standard deviations of the pool, a = weight / (2 (1 - weight)).

    The trade-off of Chen, Zhang & Zhou (NeurIPS 2018). Only ratios matter to greedy choice.
    """
    wide = scores.astype(np.float64)
    deviation = float(wide.std()) if len(wide) else 0.0
    if not 0.0 < deviation < np.inf:
        return np.ones(len(wide))
    steepness = weight / (2.0 * (1.0 - weight))
    quality: Floats = np.exp(np.maximum(steepness * (wide - wide.max()) / deviation, _FAINTEST))
    return quality


def _best(gains: Floats, left: Mask, cap: Cap | None) -> int:
    """Place with the largest gain among those left; it is taken."""
    may = left if cap is None else cap.open(left)
    best = int(np.where(may, gains, -np.inf).argmax())
    left[best] = False
    if cap is not None:
        cap.take(best)
    return best


def _factor(kernel: Floats, places: list[int]) -> tuple[Floats, Floats]:
    """Cholesky rows (m, n) of some places, and what they leave of every item's variance (n,)."""
    rows, variances = np.empty((0, len(kernel))), kernel.diagonal().copy()
    for place in places:
        rows, variances = _grown(kernel, rows, variances, place)
    return rows, variances


def _grown(kernel: Floats, rows: Floats, variances: Floats, place: int) -> tuple[Floats, Floats]:
    if variances[place] <= _INDEPENDENT * kernel[place, place]:
        return rows, variances  # says nothing that the rows don't
    row = (kernel[place] - rows[:, place] @ rows) / np.sqrt(variances[place])
    return np.vstack((rows, row)), np.maximum(variances - row**2, 0.0)
