"""Accuracy of ranked lists, a whole population at once.

Everywhere here: `recommended` is int64 (n_users, K), item codes best first, NOWHERE after the last one, no
code twice in a row (`as_ranking` makes any table so). Codes are any non-negative integers that name items the
same way in `recommended` and in `Relevant`; an item that only the held-out data knows has a code nobody
recommends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NOWHERE = -1
"""Padding: no item at this place."""

POSITIVE = 0.75
"""Least value, of 0 to 1, that makes an interaction positive: most of a track was heard."""

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Relevant:
    """Held-out items of each user, ragged.

    indptr: int64 (n_users + 1,). items: int64 (n,), ascending and unique within a user.
    """

    indptr: Codes
    items: Codes

    @classmethod
    def of_pairs(
        cls, user_rows: npt.NDArray[np.integer], item_codes: npt.NDArray[np.integer], n_users: int
    ) -> Relevant:
        """Group (user row, item code) pairs by user; a repeated pair counts once."""
        order = np.lexsort((item_codes, user_rows))
        users, items = user_rows[order].astype(np.int64), item_codes[order].astype(np.int64)
        new = np.ones(len(users), bool)
        new[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1])
        users, items = users[new], items[new]
        indptr = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=indptr[1:])
        return cls(indptr, items)

    @classmethod
    def of_values(
        cls,
        user_rows: npt.NDArray[np.integer],
        item_codes: npt.NDArray[np.integer],
        values: npt.NDArray[np.floating],
        n_users: int,
        *,
        at_least: float = POSITIVE,
    ) -> Relevant:
        """Group the pairs whose value is `at_least` or more; one of several rows of a pair suffices.

        values: float (n,), of the pairs in their order; NaN is not positive. A user may end up with nothing:
        `select(np.flatnonzero(relevant.counts))` keeps those that accuracy is defined for.
        """
        positive = np.asarray(values) >= at_least
        return cls.of_pairs(user_rows[positive], item_codes[positive], n_users)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> Codes:
        """int64 (n_users,): how many items each user holds."""
        return np.diff(self.indptr)

    def select(self, users: Integers) -> Relevant:
        """Keep some users, in the order given."""
        counts = self.counts[users]
        indptr = np.zeros(len(users) + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[users] - indptr[:-1], counts)
        return Relevant(indptr, self.items[places])


def as_ranking(recommended: Codes) -> Codes:
    """Close gaps and let a repeated item count once, at its best place. int64 (n_users, K) in and out."""
    table = np.asarray(recommended, np.int64)
    order = np.argsort(table, axis=1, kind="stable")
    ordered = np.take_along_axis(table, order, axis=1)
    repeated = np.zeros(table.shape, bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    keep = np.empty(table.shape, bool)
    np.put_along_axis(keep, order, ~repeated, axis=1)
    keep &= table != NOWHERE
    to_front = np.argsort(~keep, axis=1, kind="stable")
    return np.where(
        np.take_along_axis(keep, to_front, axis=1), np.take_along_axis(table, to_front, axis=1), NOWHERE
    )


def hits(recommended: Codes, relevant: Relevant) -> npt.NDArray[np.bool_]:
    """Mark, bool (n_users, K), the places whose item is among the user's held-out ones."""
    n_users = len(relevant)
    if recommended.shape[0] != n_users:
        raise ValueError(f"{recommended.shape[0]} rows of recommendations for {n_users} users")
    if not relevant.items.size or not recommended.size:
        return np.zeros(recommended.shape, bool)
    stride = int(max(relevant.items.max(), recommended.max())) + 1
    held = np.repeat(np.arange(n_users), relevant.counts) * stride + relevant.items
    asked = np.arange(n_users)[:, None] * stride + recommended
    place = np.minimum(np.searchsorted(held, asked), len(held) - 1)
    return np.asarray((held[place] == asked) & (recommended != NOWHERE), bool)


def accuracy(recommended: Codes, relevant: Relevant, k: int) -> dict[str, Floats]:
    """Every accuracy metric at `k`, per user: name -> float64 (n_users,). The mean over users is the metric.

    With h(r) = 1 where the item at rank r is relevant and P(r) the share of hits among the first r:
    Recall = sum h / |rel|; Precision = sum h / k; HR = 1 if any h; MRR = 1 / rank of the first hit, else 0;
    MAP = sum h(r) P(r) / min(k, |rel|); MAPr = the same sum / |rel|, not truncated (the KION competition's
    formula); NDCG = sum h(r) / log2(r + 1) over its value for min(k, |rel|) leading hits.
    A user without recommendations scores 0. Raises ValueError if a user has nothing held out.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    n_relevant = relevant.counts.astype(np.float64)
    if not n_relevant.all():
        raise ValueError("a user without held-out items has no accuracy")
    hit = hits(recommended[:, :k], relevant)
    depth = hit.shape[1]
    ranks = np.arange(1, depth + 1)
    n_hits = hit.sum(axis=1).astype(np.float64)
    precision_sum = (hit * (np.cumsum(hit, axis=1) / ranks)).sum(axis=1)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.r_[0.0, np.cumsum(discounts)]
    reachable = np.minimum(k, n_relevant)
    any_hit = hit.any(axis=1)
    first = np.argmax(hit, axis=1) if depth else np.zeros(len(hit), np.int64)
    return {
        f"Recall@{k}": n_hits / n_relevant,
        f"NDCG@{k}": (hit * discounts[:depth]).sum(axis=1) / ideal[reachable.astype(np.int64)],
        f"MAP@{k}": precision_sum / reachable,
        f"MAPr@{k}": precision_sum / n_relevant,
        f"HR@{k}": any_hit.astype(np.float64),
        f"Precision@{k}": n_hits / k,
        f"MRR@{k}": np.where(any_hit, 1.0 / (first + 1), 0.0),
    }
