"""What users went on to do, coded so that it can be compared with what was recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.beyond_accuracy import Training
from models.evaluation.metrics import NOWHERE, Codes, Relevant
from service.bundle.ids import UNKNOWN, Ids
from service.bundle.reader import Bundle
from service.domain import ItemId, UserId
from service.errors import InputError

IdArray = npt.NDArray[Any]
"""Ids as read: int64 (n,), or an array of str."""


class ItemCodes:
    """One code an item: its catalogue row, or a number past the catalogue where that lacks it."""

    def __init__(self, item_ids: Ids) -> None:
        self._item_ids = item_ids
        self._others: dict[ItemId, int] = {}

    def __len__(self) -> int:
        return len(self._item_ids) + len(self._others)

    def encode(self, identifiers: Sequence[ItemId] | IdArray) -> Codes:
        """Codes, int64 (n,), of ids in their order; an unknown id gets a code of its own."""
        distinct, inverse = np.unique(_array(identifiers), return_inverse=True)
        listed = distinct.tolist()
        codes = self._item_ids.rows_of(listed).astype(np.int64)
        for place in np.flatnonzero(codes == UNKNOWN).tolist():
            codes[place] = self._others.setdefault(listed[place], len(self))
        return codes[inverse.ravel()]

    def decode(self, codes: Codes) -> list[ItemId]:
        """Ids of codes, in their order."""
        known = codes < len(self._item_ids)
        taken = iter(self._item_ids.take(codes[known]))
        others = list(self._others)
        size = len(self._item_ids)
        return [
            next(taken) if is_known else others[code - size]
            for code, is_known in zip(codes.tolist(), known.tolist(), strict=True)
        ]

    def table(self, lists: Sequence[Sequence[ItemId]], width: int) -> Codes:
        """Codes of lists, int64 (n_lists, width), NOWHERE after a list's end."""
        table = np.full((len(lists), width), NOWHERE, np.int64)
        lengths = np.array([min(len(items), width) for items in lists], np.int64)
        flat = [item for items in lists for item in items[:width]]
        if flat:
            table[np.arange(width) < lengths[:, None]] = self.encode(flat)
        return table


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out positives of the users who have any. `user_ids`: distinct, ascending."""

    user_ids: list[UserId]
    relevant: Relevant

    @classmethod
    def of(
        cls, user_ids: Sequence[UserId] | IdArray, item_ids: Sequence[ItemId] | IdArray, codes: ItemCodes
    ) -> HeldOut:
        """Group (user, item) pairs; repeats count once, unknown ids stay in. Raises InputError if empty."""
        if len(user_ids) == 0:
            raise InputError("no held-out rows: there is nothing to measure against")
        distinct, rows = np.unique(_array(user_ids), return_inverse=True)
        listed: list[UserId] = distinct.tolist()
        return cls(listed, Relevant.of_pairs(rows.ravel(), codes.encode(item_ids), len(listed)))

    @property
    def n_rows(self) -> int:
        """Distinct (user, item) pairs."""
        return len(self.relevant.items)


def training_of_bundle(bundle: Bundle) -> Training:
    """Popularity by the bundle's own history: one interaction a (user, item) pair."""
    counts = np.bincount(bundle.history_items, minlength=len(bundle.item_ids)).astype(np.int64)
    return Training(counts, counts, int(np.count_nonzero(np.diff(bundle.history_indptr))))


def training_of_rows(
    user_ids: Sequence[UserId] | IdArray, item_ids: Sequence[ItemId] | IdArray, codes: ItemCodes
) -> Training:
    """Popularity by the rows of a training file: a repeated pair is several interactions of one user."""
    users, user_rows = np.unique(_array(user_ids), return_inverse=True)
    items = codes.encode(item_ids)
    size = len(codes)
    pairs = np.unique(user_rows.ravel().astype(np.int64) * size + items)
    return Training(
        np.bincount(items, minlength=size).astype(np.int64),
        np.bincount(pairs % size, minlength=size).astype(np.int64),
        len(users),
    )


def _array(identifiers: Sequence[Any] | IdArray) -> IdArray:
    if isinstance(identifiers, np.ndarray):
        return identifiers
    # Without a dtype numpy would make text of [1, "a"] and so confuse 1 with "1".
    kinds = {type(identifier) for identifier in identifiers}
    if kinds <= {int}:
        return np.array(identifiers, np.int64)
    if kinds == {str}:
        return np.array(identifiers, np.str_)
    raise InputError(f"ids must be all integers or all text, not {sorted(kind.__name__ for kind in kinds)}")
