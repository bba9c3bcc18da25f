"""Rules of the business: some items stand higher, some lower, some first. Pure functions of candidates.

Candidates stand best first. No candidate is ever added or lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.bundle.reader import Bundle
from service.domain import Candidates, ItemFilter, Rule
from service.recommender.filters import items_in

Mask = npt.NDArray[np.bool_]


def weighed(candidates: Candidates, rules: Sequence[Rule], bundle: Bundle) -> Candidates:
    """Move boosted candidates up and buried ones down by `strength` standard deviations of all scores.

    What several rules say of an item adds up. Where scores don't differ, a deviation is 1. Equal ones keep their order.
    """
    rules = [rule for rule in rules if rule.action != "pin"]
    if not rules or len(candidates.item_rows) == 0:
        return candidates
    scores = candidates.scores.astype(np.float64)
    deviation = float(scores.std())
    if not 0.0 < deviation < np.inf:
        deviation = 1.0
    for rule in rules:
        by = rule.strength if rule.action == "boost" else -rule.strength
        scores[matches(candidates, rule, bundle)] += by * deviation
    order = (-scores).argsort(kind="stable")
    return Candidates(
        candidates.item_rows[order],
        scores[order].astype(np.float32),
        candidates.source,
        candidates.filtered,
    )


def pinned(candidates: Candidates | None, rules: Sequence[Rule], bundle: Bundle) -> Candidates | None:
    """Put up to `most` candidates of each pinning rule first, rule by rule, best first within one."""
    if candidates is None or not rules:
        return candidates
    first: list[int] = []
    for rule in rules:
        if rule.action == "pin":
            places = np.flatnonzero(matches(candidates, rule, bundle)).tolist()
            first += [place for place in places if place not in first][: rule.most]
    if not first:
        return candidates
    rest = np.ones(len(candidates.item_rows), np.bool_)
    rest[first] = False
    order = np.concatenate((np.array(first, np.int64), np.flatnonzero(rest)))
    return Candidates(
        candidates.item_rows[order], candidates.scores[order], candidates.source, candidates.filtered
    )


def matches(candidates: Candidates, rule: Rule, bundle: Bundle) -> Mask:
    """Bool (n,): which candidates a rule is about. None where the catalogue lacks the attribute."""
    return _mask(_Catalogue(bundle), rule)[candidates.item_rows]


class _Catalogue:
    """A bundle hashed by identity, so that masks can be kept as long as they are asked for."""

    __slots__ = ("bundle",)

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def __hash__(self) -> int:
        return id(self.bundle)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Catalogue) and other.bundle is self.bundle


@lru_cache(maxsize=128)
def _mask(catalogue: _Catalogue, rule: Rule) -> Mask:
    """Bool (n_items,): which items of the catalogue a rule is about."""
    bundle = catalogue.bundle
    if rule.items:
        rules = ItemFilter(allow=frozenset(rule.items))
    elif rule.attribute in bundle.attributes:
        rules = ItemFilter(attributes={rule.attribute: rule.values})
    else:
        return np.zeros(len(bundle.item_ids), np.bool_)
    mask = items_in(rules, bundle)
    assert mask is not None  # either makes one
    return mask
