"""How alike two slates are: by what they show, and by the order they show it in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from service.domain import ItemId

PERSISTENCE = 0.9
"""Of rank-biased overlap: the first ten places then carry 86% of the weight."""


def overlap(first: Sequence[ItemId], second: Sequence[ItemId]) -> float:
    """Share of the longer slate that both show, 0..1; 1 for two empty ones."""
    longer = max(len(first), len(second))
    return len(set(first).intersection(second)) / longer if longer else 1.0


def kendall_tau(first: Sequence[ItemId], second: Sequence[ItemId]) -> float | None:
    """Kendall's rank correlation of the items that both show, -1..1 (Kendall, 1938); None for fewer than two."""
    place = {item: number for number, item in enumerate(second)}
    places = [place[item] for item in first if item in place]
    pairs = len(places) * (len(places) - 1) // 2
    if not pairs:
        return None
    in_order = sum(1 for earlier, later in combinations(places, 2) if earlier < later)
    return 2 * in_order / pairs - 1


def rank_biased_overlap(first: Sequence[ItemId], second: Sequence[ItemId], p: float = PERSISTENCE) -> float:
    """Rank-biased overlap, 0..1: overlap at every depth d, weighed by (1 - p) p^(d-1).

    Extrapolated from the shorter slate's depth (Webber, Moffat and Zobel, ACM TOIS 2010, equation 23); 1 for two empty
    ones.
    """
    depth = min(len(first), len(second))
    if depth == 0:
        return float(len(first) == len(second))
    seen_first: set[ItemId] = set()
    seen_second: set[ItemId] = set()
    agreement = total = 0.0
    for d in range(1, depth + 1):
        seen_first.add(first[d - 1])
        seen_second.add(second[d - 1])
        agreement = len(seen_first & seen_second) / d
        total += agreement * p ** (d - 1)
    return (1 - p) * total + agreement * p**depth
