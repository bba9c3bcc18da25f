"""Score whole users x items blocks at once, to tune fast; what is reported comes from the serving line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.data.dataset import Dataset
from models.history import ages_from_end, unique_history
from models.trained import TrainedModel
from service.recommender.recency import NEGLIGIBLE

_BLOCK_CELLS = 1 << 23
"""Scores held at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out users: what they had read and what they went on to read.

    user_rows: int64 (m,). indptr int64 (m + 1,), items int32: CSR of their histories, unique, oldest first.
    relevant: binary CSR (m, n_items), a row a user; none of it is in the history, and every row holds
    something. among: bool (n_items,), the items to choose from; None: all.
    """

    user_rows: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    relevant: sp.csr_matrix
    among: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.user_rows)


def exam_of(train: Dataset, valid: Dataset, *, max_users: int, seed: int, with_cold: bool = False) -> Exam:
    """Set the exam: held-out users with something new to them; cold ones (no history) only where asked for.

    Above `max_users` a seeded sample of them sits it.
    """
    indptr, items = unique_history(train)
    history = sp.csr_matrix(
        (np.ones(len(items), np.float32), items, indptr), shape=(train.n_users, train.n_items)
    )
    relevant = valid.matrix(binary=True)
    relevant = relevant - relevant.multiply(history)
    relevant.eliminate_zeros()
    sits = np.diff(relevant.indptr) > 0
    if not with_cold:
        sits &= np.diff(history.indptr) > 0
    users = np.flatnonzero(sits)
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    lengths = np.diff(indptr)[users]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = np.arange(starts[-1]) + np.repeat(indptr[users] - starts[:-1], lengths)
    return Exam(users, starts, items[places], relevant[users].tocsr())


def ndcg(model: TrainedModel, exam: Exam, k: int = 10) -> npt.NDArray[np.float64]:
    """Each user's NDCG@k (Järvelin & Kekäläinen 2002), float64 (m,), seen items left out.

    Binary gain, log2 discount, an ideal of min(k, relevant). Ties go to the lower row, as in serving. A user
    the model knows nothing of, and a place without a scored item, count 0.
    """
    n_items = exam.relevant.shape[1]
    k = min(k, n_items)
    gains = np.zeros(len(exam), np.float64)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    step = max(1, _BLOCK_CELLS // max(n_items, 1))
    prepared = _prepared(model, n_items)
    for start in range(0, len(exam), step):
        part = slice(start, min(start + step, len(exam)))
        scores = _scores(model, prepared, exam, part)
        if exam.among is not None:
            scores[:, ~exam.among] = -np.inf
        indptr = exam.indptr[part.start : part.stop + 1]
        seen = exam.items[indptr[0] : indptr[-1]]
        scores[np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), seen] = -np.inf
        best, best_scores = top_k(scores, k)
        relevant = exam.relevant[part]
        hit = np.asarray(relevant.toarray())[np.arange(len(best))[:, None], best] > 0
        hit &= np.isfinite(best_scores)
        n_relevant = np.minimum(np.diff(relevant.indptr), k)
        gains[part] = (hit * discount).sum(axis=1) / ideal[n_relevant]
    return gains


def top_k(scores: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """int64 (m, k), float32 (m, k): columns of the largest scores of each row, best first."""
    candidates = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(scores, candidates, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(values, order, axis=1)


def _prepared(model: TrainedModel, n_items: int) -> Any:
    arrays = model.arrays
    if model.kind == "item_item" and "dense" not in arrays:
        return sp.csr_matrix(
            (arrays["weights"], arrays["indices"], arrays["indptr"]), shape=(n_items, n_items)
        )
    if model.kind == "lists":
        n_users = len(arrays["indptr"]) - 1
        return sp.csr_matrix((arrays["scores"], arrays["items"], arrays["indptr"]), shape=(n_users, n_items))
    return None


def _weighted_history(exam: Exam, part: slice, half_life: float | None) -> sp.csr_matrix:
    """float32 (users of the part, n_items): 1 an item, or its recency (`service.recommender.recency`)."""
    indptr = exam.indptr[part.start : part.stop + 1]
    items = exam.items[indptr[0] : indptr[-1]]
    indptr = indptr - indptr[0]
    users = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    weights = np.ones(len(items), np.float32)
    if half_life is not None:
        weights = np.exp2(-ages_from_end(indptr) / half_life).astype(np.float32)
        telling = weights > NEGLIGIBLE  # as in serving: what weighs nothing is not looked up
        users, items, weights = users[telling], items[telling], weights[telling]
    return sp.csr_matrix((weights, (users, items)), shape=(len(indptr) - 1, exam.relevant.shape[1]))


def _scores(model: TrainedModel, prepared: Any, exam: Exam, part: slice) -> npt.NDArray[np.float32]:
    """float32 (users of the part, n_items); -inf where the model says nothing."""
    arrays, users, n_items = model.arrays, exam.user_rows[part], exam.relevant.shape[1]
    scores = np.full((len(users), n_items), -np.inf, np.float32)
    if model.kind == "factors":
        place = np.searchsorted(arrays["user_rows"], users)
        place[place == len(arrays["user_rows"])] = 0
        known = np.flatnonzero(arrays["user_rows"][place] == users)
        near = arrays["user_vectors"][place[known]] @ arrays["item_vectors"].T
        if model.space == "l2":  # |u - v|^2 = |u|^2 - 2 (u v - |v|^2 / 2), and |u| is the same for all items
            near -= 0.5 * np.einsum("nd,nd->n", arrays["item_vectors"], arrays["item_vectors"])
        scores[np.ix_(known, arrays["item_rows"])] = near
    elif model.kind == "item_item":
        history = _weighted_history(exam, part, model.parameters.get("history_half_life"))
        if "dense" in arrays:
            return np.asarray(history @ arrays["dense"], np.float32)
        found = (history @ prepared).tocoo()
        scores[found.row, found.col] = found.data
    elif model.kind == "popular":
        # Ranks, not scores: a segment's list goes on with everybody's.
        everybody = arrays["items"][: arrays["indptr"][1]]
        scores[:, everybody] = -np.arange(len(everybody), dtype=np.float32)
        unread = np.diff(exam.indptr[part.start : part.stop + 1]) == 0
        segments = arrays["user_segment"][users] + np.where(unread, model.parameters.get("first_lists", 0), 0)
        for segment in np.unique(segments).tolist():
            if segment:
                own = arrays["items"][arrays["indptr"][segment] : arrays["indptr"][segment + 1]]
                rows = np.flatnonzero(segments == segment)
                scores[np.ix_(rows, own)] = np.arange(len(own), 0, -1, dtype=np.float32)
    else:
        listed = prepared[users].tocoo()
        scores[listed.row, listed.col] = listed.data
    return scores
