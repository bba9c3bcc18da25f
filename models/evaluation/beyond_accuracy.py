"""What a list is like apart from being right: novel, varied, surprising, fair to the long tail.

`recommended` is as in `models.evaluation.metrics`. Item codes below `len(known)` are items of the catalogue;
larger ones are unknown to training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.evaluation.bootstrap import PerUser
from models.evaluation.metrics import NOWHERE, Codes, Floats

HEAD_SHARE = 0.8
"""The short head: the fewest, most popular items that hold this share of interactions."""


@dataclass(frozen=True, slots=True)
class Training:
    """What training knew of each item, by item code.

    interactions, users: int64 (n_codes,), rows and distinct users of each item. n_users: users with any row.
    """

    interactions: Codes
    users: Codes
    n_users: int

    @property
    def catalogue(self) -> int:
        """How many items were seen in training."""
        return int(np.count_nonzero(self.interactions))

    def at(self, counts: Codes, codes: Codes) -> Codes:
        """Look `counts` up; 0 for codes beyond the catalogue and for empty places."""
        inside = (codes >= 0) & (codes < len(counts))
        return (
            np.where(inside, counts[np.where(inside, codes, 0)], 0) if len(counts) else np.zeros_like(codes)
        )


def _n_places(recommended: Codes) -> Floats:
    return np.asarray((recommended != NOWHERE).sum(axis=1), np.float64)


def _mean_of_list(values: Floats, recommended: Codes) -> PerUser:
    """Mean over users of the mean over their list; users without a list are left out."""
    n = _n_places(recommended)
    return PerUser(np.where(n > 0, values.sum(axis=1) / np.maximum(n, 1), 0.0), (n > 0).astype(np.float64))


def average_popularity(recommended: Codes, training: Training) -> PerUser:
    """`avgpop`: training interactions of a recommended item, mean over all recommended places."""
    popularity = training.at(training.interactions, recommended).astype(np.float64)
    return PerUser(popularity.sum(axis=1), _n_places(recommended))


def novelty(recommended: Codes, training: Training) -> PerUser:
    """`novelty`: -log2(interactions / users), an unseen item counting as one; mean over all places."""
    popularity = np.maximum(training.at(training.interactions, recommended), 1)
    bits = np.where(recommended != NOWHERE, -np.log2(popularity / max(training.n_users, 1)), 0.0)
    return PerUser(bits.sum(axis=1), _n_places(recommended))


def miuf(recommended: Codes, training: Training) -> PerUser:
    """`MIUF`: -log2(users of the item / users), unseen counting as one; mean of a list, then over users.

    Mean inverse user frequency (Zhou et al. 2010). The KION competition calls this one novelty.
    """
    users = np.maximum(training.at(training.users, recommended), 1)
    bits = np.where(recommended != NOWHERE, -np.log2(users / max(training.n_users, 1)), 0.0)
    return _mean_of_list(bits, recommended)


def rarity(recommended: Codes, training: Training) -> PerUser:
    """`Rarity`: 1 - users of the item / users, 1 for an unseen item; mean of a list, then over users."""
    share = training.at(training.users, recommended) / max(training.n_users, 1)
    return _mean_of_list(np.where(recommended != NOWHERE, 1.0 - share, 0.0), recommended)


def user_coverage(recommended: Codes) -> PerUser:
    """`user_coverage`: share of users who were recommended anything."""
    return PerUser.mean_of((recommended != NOWHERE).any(axis=1).astype(np.float64))


def average_recommendation_popularity(recommended: Codes, training: Training) -> PerUser:
    """`ARP`: training users of a recommended item, mean of a list, then over users (Yin et al. 2012)."""
    return _mean_of_list(training.at(training.users, recommended).astype(np.float64), recommended)


def head_items(training: Training) -> npt.NDArray[np.bool_]:
    """Mark the short head, bool (n_codes,): the fewest items that hold HEAD_SHARE of interactions."""
    order = np.argsort(-training.interactions, kind="stable")
    before = np.cumsum(training.interactions[order]) - training.interactions[order]
    head = np.zeros(len(training.interactions), bool)
    head[order] = before < HEAD_SHARE * training.interactions.sum()
    return head


def long_tail_share(recommended: Codes, training: Training) -> PerUser:
    """`APLT`: share of a list outside the short head, mean over users (Abdollahpouri et al. 2019)."""
    head = training.at(head_items(training).astype(np.int64), recommended) > 0
    return _mean_of_list(((recommended != NOWHERE) & ~head).astype(np.float64), recommended)


def serendipity(recommended: Codes, hit: npt.NDArray[np.bool_], training: Training, k: int) -> PerUser:
    """`Serendipity`: sum over ranks r of max(P(r) - P^U(item), 0) * rel / k, mean over users.

    P(r) = (n_items + 1 - r) / n_items, how sure the list is of the item; P^U the same of the item's
    popularity rank, ties sharing one rank (dense), an unseen item ranking after every seen one. n_items: the
    training catalogue.
    """
    n_items = max(training.catalogue, 1)
    levels = np.unique(training.interactions[training.interactions > 0])
    interactions = training.at(training.interactions, recommended)
    popularity_rank = len(levels) - np.searchsorted(levels, interactions) + (interactions == 0)
    p_list = (n_items + 1 - np.arange(1, recommended.shape[1] + 1)) / n_items
    p_user = (n_items + 1 - popularity_rank) / n_items
    gain = np.maximum(p_list - p_user, 0.0) * hit
    return PerUser.mean_of(gain.sum(axis=1) / k)


def intra_list_diversity(recommended: Codes, one_hots: sp.csr_matrix) -> PerUser:
    """`ILD`: Hamming distance of attribute one-hots, mean over a list's pairs, then over users with a list.

    one_hots: 0/1 (n_codes, n_values). Of c items of n with a value, c(n - c) pairs differ in it, so a list
    costs one row of a sparse product and no pair is ever formed. A list of one item has diversity 0.
    """
    inside = (recommended >= 0) & (recommended < one_hots.shape[0])
    users, _ = np.nonzero(inside)
    chosen = sp.csr_matrix(
        (np.ones(len(users)), (users, recommended[inside])), shape=(len(recommended), one_hots.shape[0])
    )
    n = _n_places(recommended)
    counts = (chosen @ one_hots).tocsr()
    differing = (
        n * np.asarray(counts.sum(axis=1)).ravel() - np.asarray(counts.multiply(counts).sum(axis=1)).ravel()
    )
    pairs = n * (n - 1) / 2
    return PerUser(np.where(pairs > 0, differing / np.maximum(pairs, 1), 0.0), (n > 0).astype(np.float64))


def coverage(recommended: Codes, catalogue: int) -> float:
    """`coverage`: distinct recommended items / catalogue. Above 1 when items outside it are recommended."""
    distinct = np.unique(recommended[recommended != NOWHERE]).size
    return distinct / catalogue if catalogue else 0.0


def gini(recommended: Codes, training: Training) -> float:
    """`Gini`: inequality of exposure over the catalogue: 0 all items equally often, 1 one item takes all.

    sum over j of (2j - n - 1) p_j / (n - 1), p ascending shares of the places, j from 1 (n - 1 and not n, so
    that 1 is reached). A catalogue of one item is equal.
    """
    shown = recommended[(recommended >= 0) & (recommended < len(training.interactions))]
    exposure = np.bincount(shown, minlength=len(training.interactions))
    exposure = np.sort(exposure[(training.interactions > 0) | (exposure > 0)]).astype(np.float64)
    n, total = len(exposure), exposure.sum()
    if n < 2 or not total:
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * exposure).sum() / ((n - 1) * total))
