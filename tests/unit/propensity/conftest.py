"""An audience with tastes that mostly meets what is popular anyway."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

N_USERS, N_ITEMS, N_TASTES = 300, 120, 4


@pytest.fixture(scope="module")
def biased() -> sp.csr_matrix:
    """0/1 CSR (users, items): likelier for popular items and active users, likelier still within a taste."""
    rng = np.random.default_rng(8)
    popular = 1.0 / np.arange(1, N_ITEMS + 1) ** 0.9
    active = rng.lognormal(0.0, 0.5, N_USERS)
    alike = rng.integers(0, N_TASTES, N_USERS)[:, None] == rng.permutation(N_ITEMS)[None, :] % N_TASTES
    odds = np.minimum(active[:, None] * popular[None, :] * np.where(alike, 4.0, 0.7), 0.95)
    return sp.csr_matrix((rng.random((N_USERS, N_ITEMS)) < odds).astype(np.float64))
