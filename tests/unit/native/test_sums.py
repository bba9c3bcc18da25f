"""Sums of a history's rows of a matrix, and the best of many scores, against numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from service.native import Sums, top

Matrix = npt.NDArray[np.float32]


def sparse(matrix: Matrix, recency: Matrix | None) -> Sums:
    """The entries that aren't 0 as CSR."""
    owners, indices = matrix.nonzero()
    indptr = np.searchsorted(owners, np.arange(len(matrix) + 1))
    return Sums(
        len(matrix), recency, indptr.astype(np.int64), indices.astype(np.int32), matrix[owners, indices]
    )


def drawn(seed: int, n: int) -> tuple[Matrix, np.random.Generator]:
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(n, n)).astype(np.float32)
    matrix[generator.random((n, n)) < 0.7] = 0.0
    return matrix, generator


worlds = given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    length=st.integers(0, 20),
    reach=st.none() | st.integers(1, 8),
    dense=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@worlds
def test_scores_are_the_sum_of_the_history_s_rows(
    seed: int, n: int, length: int, reach: int | None, dense: bool
) -> None:
    matrix, generator = drawn(seed, n)
    recency = None if reach is None else generator.random(reach).astype(np.float32)
    sums = Sums(n, recency, dense=matrix) if dense else sparse(matrix, recency)
    history = generator.permutation(n)[:length].astype(np.int32)
    counted = history if reach is None else history[-reach:]
    weights = np.ones(len(counted)) if recency is None else recency[len(recency) - len(counted) :]
    expected = weights @ matrix[counted].astype(np.float64)
    if not dense:
        expected[(matrix[counted] == 0).all(axis=0)] = -np.inf
    for _ in range(2):  # what one search leaves behind must not show in the next
        scores = sums.scores(history)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    excluded = generator.permutation(n)[: n // 3].astype(np.int32)
    mask = generator.random(n) < 0.8
    rows, told = sums.best(history, 5, excluded, mask)
    again, also_told = top(scores, 5, excluded, mask)
    assert rows.tolist() == again.tolist()
    np.testing.assert_array_equal(told, also_told)


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), max_size=200),
    n=st.integers(0, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_stand_in_order_and_none_that_may_not_be_shown(
    scores: list[float], n: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    given_scores = np.array(scores, np.float32)
    size = len(given_scores)
    excluded = generator.permutation(size)[: size // 4].astype(np.int32)
    mask = generator.random(size) < 0.7
    allowed = [
        place
        for place in range(size)
        if mask[place] and place not in excluded and given_scores[place] > -np.inf
    ]
    expected = sorted(allowed, key=lambda place: (-given_scores[place], place))[:n]
    rows, told = top(given_scores, n, excluded, mask)
    assert rows.tolist() == expected
    np.testing.assert_array_equal(told, given_scores[expected])


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), dense=st.booleans())
def test_pairs_are_the_matrix_s_entries(seed: int, n: int, dense: bool) -> None:
    matrix, generator = drawn(seed, n)
    sums = Sums(n, None, dense=matrix) if dense else sparse(matrix, None)
    for _ in range(2):
        history = generator.integers(0, n, 7).astype(np.int32)
        rows = generator.permutation(n)[:9].astype(np.int32)
        np.testing.assert_array_equal(sums.pairs(history, rows), matrix[np.ix_(history, rows)])
