"""The KION competition's own MAP, in the two forms it was computed in, to report beside the strict one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.evaluation.metrics import Codes, Floats, Relevant, accuracy
from service.domain import ItemId

_BETWEEN = "\0"


def notebook_map(recommended: Codes, relevant: Relevant) -> Floats:
    """float64 (n_users,): `MAP@10` as the competition's notebook computes it, over the whole list.

    The sum of (hit number / rank) over all hits, divided by all true items. Nothing is cut at 10: given lists of
    200 it counts hits at rank 150. On lists of 10 it is the strict form, `MAPr@10` of `models.evaluation.metrics`.
    """
    width = max(recommended.shape[1], 1)
    return accuracy(recommended, relevant, width)[f"MAPr@{width}"]


def leaderboard_map(recommended: Sequence[Sequence[ItemId]], relevant: Sequence[Sequence[ItemId]]) -> Floats:
    """float64 (n_users,): the competition's average precision, which takes substrings for hits.

    Its code looks for the text of a recommended id inside the text of the user's whole list of true ids, so a
    recommended 12 "hits" a true 123. Otherwise as the strict form: hits are numbered in list order, each adds
    (number / rank), the sum is divided by all of the user's true items, untruncated. One true item can be hit
    several times, so a user may exceed 1. A known flaw: never tune on it. The strict form is `MAPr` of
    `models.evaluation.metrics`.
    """
    scores = np.zeros(len(relevant))
    for user, (items, true_items) in enumerate(zip(recommended, relevant, strict=True)):
        text = _BETWEEN.join(map(str, true_items))
        found, total = 0, 0.0
        for rank, item in enumerate(items, start=1):
            if str(item) in text:
                found += 1
                total += found / rank
        scores[user] = total / len(true_items)
    return scores
