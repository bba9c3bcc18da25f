"""Propensities of generated pairs: better than chance on pairs kept apart, right on average, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from models.propensity.logistic import Factors, Propensity, area_under_curve, draw_others
from service.errors import InputError


def test_held_out_pairs_outscore_others(biased: sp.csr_matrix) -> None:
    pairs = biased.tocoo()
    rng = np.random.default_rng(0)
    kept = rng.random(pairs.nnz) < 0.8
    learnt = sp.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)
    model = Propensity.fit(learnt, Factors.of_interactions(learnt, 4))
    users, items = draw_others(biased, 5 * int((~kept).sum()), rng)
    scores = model.of_pairs(np.r_[pairs.row[~kept], users], np.r_[pairs.col[~kept], items])
    happened = np.r_[np.ones(int((~kept).sum())), np.zeros(len(users))]
    assert area_under_curve(scores, happened) > 0.7
    shuffled = rng.permutation(happened)
    assert area_under_curve(scores, shuffled) == pytest.approx(0.5, abs=0.05)


def test_known_weights_are_found_again() -> None:
    rng = np.random.default_rng(1)
    factors = Factors(
        rng.normal(size=200), rng.normal(size=150), rng.normal(size=(200, 3)), rng.normal(size=(150, 3))
    )
    users, items = np.divmod(np.arange(200 * 150), 150)
    true = np.array([0.7, 1.2, 0.5])
    odds = expit(-4.0 + factors.features(users, items) @ true)
    happened = rng.random(len(odds)) < odds
    model = Propensity.fit(sp.csr_matrix(happened.reshape(200, 150).astype(np.float64)), factors)
    assert model.weights == pytest.approx(true, abs=0.15)
    assert model.intercept == pytest.approx(-4.0, abs=0.2)


def test_probabilities_are_of_all_pairs_not_of_the_drawn_ones(biased: sp.csr_matrix) -> None:
    users, items = np.divmod(np.arange(biased.shape[0] * biased.shape[1]), biased.shape[1])
    for n_negatives in (2, 20):
        model = Propensity.fit(biased, Factors.of_interactions(biased, 4), n_negatives=n_negatives)
        share = biased.nnz / len(users)
        assert model.of_pairs(users, items).mean() == pytest.approx(share, rel=0.1)


def test_inverse_weights_are_clipped(biased: sp.csr_matrix) -> None:
    model = Propensity.fit(biased, Factors.of_interactions(biased, 4))
    users, items = np.arange(100), np.arange(100)
    weights = model.inverse_weights(users, items, at_least=0.05)
    assert weights == pytest.approx(1 / np.maximum(model.of_pairs(users, items), 0.05))
    assert weights.max() == pytest.approx(20)
    assert weights.min() < 20
    with pytest.raises(ValueError, match="clip"):
        model.inverse_weights(users, items, at_least=0.0)


def test_equal_seeds_give_equal_models(biased: sp.csr_matrix) -> None:
    first, second, other = (
        Propensity.fit(biased, Factors.of_interactions(biased, 4, seed=2), seed=seed) for seed in (3, 3, 4)
    )
    assert first.weights.tolist() == second.weights.tolist()
    assert first.weights.tolist() != other.weights.tolist()


def test_features_by_hand() -> None:
    factors = Factors(
        np.array([1.0, 2.0]), np.array([5.0]), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[10.0, 1.0]])
    )
    assert factors.features(np.array([1]), np.array([0])).tolist() == [[2.0, 5.0, 34.0]]


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.randoms())
def test_drawn_pairs_have_no_interaction_and_reach_all_that_have_none(
    n_users: int, n_items: int, random: np.random.Generator
) -> None:
    table = np.array([[float(random.random() < 0.5) for _ in range(n_items)] for _ in range(n_users)])
    table[0, 0] = 0.0
    free = set(zip(*(rows.tolist() for rows in np.nonzero(table == 0)), strict=True))
    users, items = draw_others(sp.csr_matrix(table), 1000, np.random.default_rng(0))
    assert set(zip(users.tolist(), items.tolist(), strict=True)) == free


def test_area_under_curve_by_hand() -> None:
    assert area_under_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.75)
    assert area_under_curve([1, 1], [0, 1]) == pytest.approx(0.5)
    assert np.isnan(area_under_curve([1, 2], [1, 1]))


def test_pairs_of_one_kind_only_are_refused() -> None:
    factors = Factors(np.zeros(2), np.zeros(2), np.zeros((2, 1)), np.zeros((2, 1)))
    for table in (np.zeros((2, 2)), np.ones((2, 2))):
        with pytest.raises(InputError, match="pairs with an interaction and pairs without"):
            Propensity.fit(sp.csr_matrix(table), factors)
    with pytest.raises(InputError, match="none to draw"):
        draw_others(sp.csr_matrix(np.ones((2, 2))), 1, np.random.default_rng(0))


def test_more_dimensions_than_the_matrix_has_are_refused(biased: sp.csr_matrix) -> None:
    with pytest.raises(InputError, match="dimensions"):
        Factors.of_interactions(biased, min(biased.shape))
