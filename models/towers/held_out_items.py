"""An exam for models of pairs: one item of some users is taken out of what is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.build.scoring import Exam
from models.data.dataset import Dataset
from models.history import unique_history

_MAX_EXAMINED = 2_000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pairs of users and items with events, and those of them that are learned.

    user_rows, item_rows: int32, ascending, the dataset's rows of the users and items. whole, learned: binary float32
    CSR (users, items). exam: rows among the users.
    """

    user_rows: npt.NDArray[np.int32]
    item_rows: npt.NDArray[np.int32]
    whole: sp.csr_matrix
    learned: sp.csr_matrix
    exam: Exam


def held_out(dataset: Dataset, *, seed: int) -> HeldOut:
    """Hold out the last item (any one, where events have no order) of at most 2,000 users.

    They are drawn among those with three items or more, at most a third of them.
    """
    pairs = dataset.matrix(binary=True)
    user_rows = np.flatnonzero(np.diff(pairs.indptr)).astype(np.int32)
    item_rows = np.unique(pairs.indices).astype(np.int32)
    whole = pairs[user_rows][:, item_rows].tocsr()
    generator = np.random.default_rng(seed)
    able = np.flatnonzero(np.diff(whole.indptr) >= 3)
    users = np.sort(generator.choice(able, min(_MAX_EXAMINED, len(able) // 3), replace=False))
    indptr, items = unique_history(dataset)
    begins, ends = indptr[user_rows[users]], indptr[user_rows[users] + 1]
    at = ends - 1 if dataset.times is not None else generator.integers(begins, ends)
    wanted = np.searchsorted(item_rows, items[at])
    ones = np.ones(len(users), np.float32)
    learned = (whole - sp.csr_matrix((ones, (users, wanted)), shape=whole.shape)).tocsr()
    learned.eliminate_zeros()
    histories = learned[users].tocsr()
    relevant = sp.csr_matrix((ones, (np.arange(len(users)), wanted)), shape=(len(users), len(item_rows)))
    exam = Exam(
        users.astype(np.int64),
        histories.indptr.astype(np.int64),
        histories.indices.astype(np.int32),
        relevant,
    )
    return HeldOut(user_rows, item_rows, whole, learned, exam)
