"""What training keeps back for itself, to know when to stop."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from models.build.scoring import Exam
from models.dssm.windows import Histories

MAX_USERS = 1_000
SHARE = 0.1
"""Of a chosen user's items, the latest; at least one."""
LEAST_ITEMS = 3
"""Of users who can be chosen: one to be held out, two to go by."""


def hold_out(histories: Histories, n_items: int, *, seed: int) -> tuple[Histories, Exam] | None:
    """Part histories into those to train on and an exam in the latest items of some users; None if too few.

    Where order means nothing, the items held out are random ones. Of every two users who could be chosen, one at
    most is.
    """
    generator = np.random.default_rng(seed)
    lengths = histories.lengths()
    eligible = np.flatnonzero(lengths >= LEAST_ITEMS)
    if len(eligible) < 2:
        return None
    chosen = np.sort(generator.choice(eligible, min(MAX_USERS, len(eligible) // 2), replace=False))
    items = histories.items if histories.ordered else histories.shuffled(generator)
    n_held = np.zeros(len(lengths), np.int64)
    n_held[chosen] = np.maximum((lengths[chosen] * SHARE).astype(np.int64), 1)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    from_end = histories.indptr[1:][owners] - 1 - np.arange(len(items))
    held = from_end < n_held[owners]
    kept = Histories(
        np.concatenate([[0], np.cumsum(lengths - n_held)]), items[~held], ordered=histories.ordered
    )
    place = np.searchsorted(chosen, owners[held])
    relevant = sp.csr_matrix(
        (np.ones(len(place), np.float32), (place, items[held])), shape=(len(chosen), n_items)
    )
    own = kept.of(chosen)
    return kept, Exam(chosen, own.indptr, own.items, relevant)
