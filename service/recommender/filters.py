"""Filtering: which items may be shown to this user under this query."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.bundle.ids import UNKNOWN
from service.bundle.reader import Attribute, Bundle
from service.domain import Candidates, ItemFilter, ItemRows, Query, value
from service.errors import InvalidRequest
from service.recommender.user_state import UserState

Mask = npt.NDArray[np.bool_]
_NOTHING: ItemRows = np.empty(0, np.int32)


@value
class Eligible:
    """excluded: item rows that must not be shown (seen, denied). mask: bool (n_items,), True where the allow list
    and the attributes let an item through; None lets every item through."""

    excluded: ItemRows
    mask: Mask | None


EVERYTHING = Eligible(_NOTHING, None)


def eligible(query: Query, user: UserState, bundle: Bundle) -> Eligible:
    """What this query lets through. Raises InvalidRequest for an attribute the catalogue doesn't have."""
    if query.filter is None:
        return Eligible(user.history, None) if query.exclude_seen else EVERYTHING
    excluded = user.history if query.exclude_seen else _NOTHING
    if query.filter.deny:
        denied = bundle.item_ids.rows_of(query.filter.deny)
        excluded = np.union1d(excluded, denied[denied != UNKNOWN]).astype(np.int32)
    return Eligible(excluded, items_in(query.filter, bundle))


def among(rows: ItemRows, rules: Eligible) -> ItemRows:
    """Of these item rows, in their order, those that may be shown."""
    if rules.mask is not None:
        rows = rows[rules.mask[rows]]
    return rows[np.isin(rows, rules.excluded, invert=True)] if len(rules.excluded) else rows


def drop_ineligible(candidates: Candidates, rules: Eligible) -> Candidates:
    """Keep the order, drop what may not be shown."""
    rows = candidates.item_rows
    keep = np.isin(rows, rules.excluded, invert=True)
    if rules.mask is not None:
        keep &= rules.mask[rows]
    return Candidates(rows[keep], candidates.scores[keep], candidates.source, filtered=True)


def items_in(wanted: ItemFilter, bundle: Bundle) -> Mask | None:
    """Bool (n_items,), what the allow list and the attributes let through; None: everything. Raises InvalidRequest."""
    mask: Mask | None = None
    if wanted.allow is not None:
        mask = np.zeros(len(bundle.item_ids), bool)
        rows = bundle.item_ids.rows_of(wanted.allow)
        mask[rows[rows != UNKNOWN]] = True
    for name, values in wanted.attributes.items():
        if name not in bundle.attributes:
            known = ", ".join(sorted(bundle.attributes)) or "none"
            raise InvalidRequest(
                ("body", "filter", "attributes", name),
                "unknown_attribute",
                f"no item attribute {name!r} (known: {known})",
            )
        any_of = _items_with_any(_Named(bundle.attributes[name]), tuple(values))
        mask = any_of if mask is None else mask & any_of
    return mask


class _Named:
    """An attribute hashed by identity, so that its masks can be cached as long as its bundle lives."""

    __slots__ = ("attribute",)

    def __init__(self, attribute: Attribute) -> None:
        self.attribute = attribute

    def __hash__(self) -> int:
        return id(self.attribute)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and other.attribute is self.attribute


@lru_cache(maxsize=64)
def _items_with_any(named: _Named, values: tuple[str, ...]) -> Mask:
    attribute = named.attribute
    wanted = np.isin(
        attribute.codes, [code for code, value in enumerate(attribute.values) if value in values]
    )
    owner = np.repeat(np.arange(len(attribute.indptr) - 1), np.diff(attribute.indptr))
    mask = np.zeros(len(attribute.indptr) - 1, bool)
    mask[owner[wanted]] = True
    mask.setflags(write=False)
    return mask
