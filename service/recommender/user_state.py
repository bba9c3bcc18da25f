"""What the line knows of the user it answers."""

from __future__ import annotations

import numpy as np

from service.bundle.ids import UNKNOWN
from service.bundle.reader import Bundle
from service.domain import ItemRows, Query, value

_NOTHING: ItemRows = np.empty(0, np.int32)


@value
class UserState:
    """row: user row or UNKNOWN. history: item rows, contiguous, unique, oldest first. `live`: the history came with the
    query, so it outdates what was trained."""

    row: int
    history: ItemRows
    live: bool


NOBODY = UserState(UNKNOWN, _NOTHING, live=False)


def user_state(query: Query, bundle: Bundle) -> UserState:
    """Look the user up. Items of the query's history that the catalogue lacks are left out."""
    row = UNKNOWN if query.user_id is None else bundle.user_ids.row_of(query.user_id)
    if query.history is None and not query.recent:
        return NOBODY if row == UNKNOWN else UserState(row, bundle.history_of(row), False)
    rows = bundle.item_ids.rows_of((*(query.history or ()), *query.recent))
    if query.history is None and row != UNKNOWN:
        rows = np.concatenate((bundle.history_of(row), rows))
    newest_first = rows[rows != UNKNOWN][::-1]
    _, newest = np.unique(newest_first, return_index=True)  # of a repeated item the newest place counts
    return UserState(row, np.ascontiguousarray(newest_first[np.sort(newest)][::-1]), live=True)
