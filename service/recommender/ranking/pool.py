"""The pool: candidates of several sources, each item once, with what every source says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def union(lists: Sequence[ItemRows | None], n_candidates: int) -> tuple[ItemRows, Ranks]:
    """Merge lists (best first, each without repeats; None: a source that found nothing), each item once.

    Items come in turn: every list's first, then every list's second, and so on, until there are `n_candidates`.
    Returns item rows int32 (n,) and their ranks float32 (n, n_lists), NaN where a list doesn't have them.
    """
    present = [(number, rows) for number, rows in enumerate(lists) if rows is not None]
    rows = np.concatenate([rows for _, rows in present])
    columns = np.repeat([number for number, _ in present], [len(rows) for _, rows in present])
    ranks = np.concatenate([np.arange(len(rows)) for _, rows in present])
    turns = ranks * len(lists) + columns
    items, at = np.unique(rows, return_inverse=True)
    first = np.full(len(items), np.iinfo(np.int64).max)
    np.minimum.at(first, at, turns)
    order = first.argsort()[:n_candidates]
    place = np.full(len(items), -1)
    place[order] = np.arange(len(order))
    places = place[at]
    kept = places >= 0
    merged = np.full((len(lists), len(order)), np.nan, np.float32)
    merged[columns[kept], places[kept]] = ranks[kept]
    return items[order].astype(np.int32, copy=False), merged.T
