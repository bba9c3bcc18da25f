"""The pool: candidates of several sources, each item once, with what every source says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.domain import Candidates, ItemRows, Scores, Source

Ranks = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates of several sources, unranked. One row an item, one column a source.

    item_rows: int32 (n,), unique. scores: float32 (n, n_sources), a source's score of every item that it can score,
    also of those only others returned; NaN where it knows nothing. ranks: float32 (n, n_sources), place in the
    source's list from 0; NaN where that list doesn't have the item. `origin`: what the user is known by.
    """

    sources: tuple[str, ...]
    item_rows: ItemRows
    scores: Scores
    ranks: Ranks
    origin: Source

    def __len__(self) -> int:
        return len(self.item_rows)

    def in_retrieval_order(self) -> Candidates:
        """Put them as they are served unranked: the first source's list, then each other's best in turn.

        A score is one over the place: sources' own scores can't be compared.
        """
        leading = self.ranks[:, 0]
        order = np.argsort(np.where(np.isnan(leading), np.inf, leading), kind="stable")
        places = np.arange(1, len(order) + 1, dtype=np.float32)
        return Candidates(self.item_rows[order], 1.0 / places, self.origin, filtered=True)

    def found_by(self, rows: ItemRows) -> list[tuple[str, ...]]:
        """Names of the sources whose lists have each of these items; none for one that is not in the pool."""
        by_row = self.item_rows.argsort()
        at = np.minimum(np.searchsorted(self.item_rows, rows, sorter=by_row), len(by_row) - 1)
        places = by_row[at]
        listed = ~np.isnan(self.ranks[places]) & (self.item_rows[places] == rows)[:, None]
        return [
            tuple(name for name, has in zip(self.sources, row, strict=True) if has) for row in listed.tolist()
        ]


def union(lists: Sequence[ItemRows | None], n_candidates: int, n_items: int) -> tuple[ItemRows, Ranks]:
    """Merge lists (best first, each without repeats; None: a source that found nothing), each item once.

    Items come in turn: every list's first, then every list's second, and so on, until there are `n_candidates`.
    n_items: of the catalogue. Returns item rows int32 (n,) and their ranks float32 (n, n_lists), NaN where a list
    doesn't have them.
    """
    lengths = tuple(0 if rows is None else len(rows) for rows in lists)
    turns, columns, ranks = _turns(lengths)
    rows = np.concatenate([rows for rows in lists if rows is not None])[turns]
    count = np.arange(len(rows))
    first_at = np.zeros(n_items, np.intp)
    first_at[rows[::-1]] = count[::-1]  # of a repeated index the last value stays: the item's first turn
    first = first_at[rows]
    new = first == count
    places = (new.cumsum() - 1)[first]
    n = min(int(new.sum()), n_candidates)
    merged = np.full((len(lists), n + 1), np.nan, np.float32)
    merged[columns, np.minimum(places, n)] = ranks  # those past the end share a column that is cut off
    return rows[new][:n], merged[:, :n].T


@lru_cache(maxsize=1024)
def _turns(lengths: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Ranks]:
    """Of lists end to end: the order in which their entries come, each entry's list, and its rank there."""
    columns = np.repeat(np.arange(len(lengths)), lengths)
    ranks = np.concatenate([np.arange(length) for length in lengths])
    turns = np.lexsort((columns, ranks))
    found = turns, columns[turns], ranks[turns].astype(np.float32)
    for array in found:
        array.setflags(write=False)
    return found
