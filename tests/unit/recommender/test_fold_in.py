"""Fold-in against implicit's own solver."""

from __future__ import annotations

import implicit.als
import numpy as np
import pytest
import threadpoolctl
from factories import tiny_dataset

from service.recommender.fold_in import AlsFoldIn


@pytest.mark.parametrize(("alpha", "regularization"), [(1.0, 0.1), (8.0, 2.0), (40.0, 0.01)])
def test_solves_the_vector_that_implicit_solves(alpha: float, regularization: float) -> None:
    matrix = tiny_dataset().matrix(binary=True)
    with threadpoolctl.threadpool_limits(1):
        trained = implicit.als.AlternatingLeastSquares(
            factors=8, alpha=alpha, regularization=regularization, iterations=5, random_state=1, num_threads=1
        )
        trained.fit(matrix, show_progress=False)
        items = trained.item_factors
        solver = AlsFoldIn(items, items.T @ items, regularization=regularization, alpha=alpha)
        for user in (0, 3, 11):
            expected = trained.recalculate_user(user, matrix[user])
            np.testing.assert_allclose(solver.solve(matrix[user].indices), expected, rtol=1e-3, atol=1e-4)
