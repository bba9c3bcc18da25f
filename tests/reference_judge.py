"""The metrics' definitions again, user by user in plain Python, so that the fast ones have something to agree with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[int, int]


def judge(
    recs: Mapping[int, Sequence[int]], test: Iterable[Pair], train: Sequence[Pair] | None, k: int
) -> dict[str, float]:
    """Score lists of items by user (best first) against held-out pairs."""
    relevant: dict[int, set[int]] = {}
    for user, item in test:
        relevant.setdefault(user, set()).add(item)
    sums = dict.fromkeys(("Recall", "NDCG", "MAP", "MAPr", "HR", "Precision", "MRR"), 0.0)
    shown: list[int] = []
    for user, truth in relevant.items():
        items = list(dict.fromkeys(recs.get(user, ())))[:k]
        shown += items
        hit_ranks = [rank for rank, item in enumerate(items, start=1) if item in truth]
        precisions = [number / rank for number, rank in enumerate(hit_ranks, start=1)]
        best = min(k, len(truth))
        sums["Recall"] += len(hit_ranks) / len(truth)
        sums["NDCG"] += sum(1 / math.log2(r + 1) for r in hit_ranks) / sum(
            1 / math.log2(r + 1) for r in range(1, best + 1)
        )
        sums["MAP"] += sum(precisions) / best
        sums["MAPr"] += sum(precisions) / len(truth)
        sums["HR"] += bool(hit_ranks)
        sums["Precision"] += len(hit_ranks) / k
        sums["MRR"] += 1 / hit_ranks[0] if hit_ranks else 0.0
    result = {f"{name}@{k}": total / len(relevant) for name, total in sums.items()}
    if train is not None:
        popularity = Counter(item for _, item in train)
        n_users = len({user for user, _ in train})
        result[f"coverage@{k}"] = len(set(shown)) / len(popularity)
        if shown:
            result[f"avgpop@{k}"] = sum(popularity[item] for item in shown) / len(shown)
            result[f"novelty@{k}"] = -sum(math.log2(max(popularity[i], 1) / n_users) for i in shown) / len(
                shown
            )
    return result
