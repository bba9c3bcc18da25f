"""Propensity of a (user, item) pair: logistic regression on two biases and the fit of two vectors.

P(interaction | u, i) = sigmoid(w0 + w . [b_u, b_i, e_u . e_i]), fitted to the positives and to pairs drawn
from the rest; its inverse weighs what was seen (inverse propensity scoring, Schnabel et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.sparse.linalg import svds
from scipy.special import expit
from scipy.stats import rankdata

from service.errors import InputError

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.integer[Any]]

N_NEGATIVES = 20
"""Pairs without interaction drawn for each positive."""
_RIDGE = 1e-6
"""Keeps the weights finite where a feature separates the classes."""


@dataclass(frozen=True, slots=True)
class Factors:
    """What is known of users and items beforehand.

    user_biases: float64 (n_users,). item_biases: float64 (n_items,). user_vectors: float64 (n_users, dim).
    item_vectors: float64 (n_items, dim).
    """

    user_biases: Floats
    item_biases: Floats
    user_vectors: Floats
    item_vectors: Floats

    @classmethod
    def of_interactions(cls, interactions: sp.csr_matrix, dim: int = 8, *, seed: int = 0) -> Factors:
        """Biases log(1 + pairs), vectors by a truncated SVD of the 0/1 matrix (n_users, n_items).

        Raises InputError unless 1 <= dim < min(n_users, n_items).
        """
        pairs = _binary(interactions)
        if not 1 <= dim < min(pairs.shape):
            raise InputError(
                f"{dim} dimensions of a matrix of {pairs.shape[0]} users x {pairs.shape[1]} items"
            )
        start = np.random.default_rng(seed).standard_normal(min(pairs.shape))
        left, strengths, right = svds(pairs, k=dim, v0=start)
        root = np.sqrt(strengths)
        by_user, by_item = (np.asarray(pairs.sum(axis=axis)).ravel() for axis in (1, 0))
        return cls(np.log1p(by_user), np.log1p(by_item), left * root, right.T * root)

    def features(self, user_rows: Rows, item_rows: Rows) -> Floats:
        """float64 (n, 3): b_u, b_i and e_u . e_i of each pair."""
        fit = np.einsum("nd,nd->n", self.user_vectors[user_rows], self.item_vectors[item_rows])
        return np.column_stack([self.user_biases[user_rows], self.item_biases[item_rows], fit])


@dataclass(frozen=True, slots=True)
class Propensity:
    """A fitted model. weights: float64 (3,), of `Factors.features`."""

    factors: Factors
    intercept: float
    weights: Floats

    @classmethod
    def fit(
        cls, interactions: sp.csr_matrix, factors: Factors, *, n_negatives: int = N_NEGATIVES, seed: int = 0
    ) -> Propensity:
        """Fit to all pairs of a CSR (n_users, n_items) and `n_negatives` times as many drawn from the rest.

        Only a share of the rest is drawn, so the log of that share is added to the intercept (King & Zeng
        2001, section 4.1): probabilities are of all pairs. Raises InputError where there are no
        interactions or nothing but interactions.
        """
        pairs = _binary(interactions).tocoo()
        n_others = pairs.shape[0] * pairs.shape[1] - pairs.nnz
        if not pairs.nnz or not n_others:
            raise InputError("propensity needs pairs with an interaction and pairs without")
        rng = np.random.default_rng(seed)
        users, items = draw_others(interactions, n_negatives * pairs.nnz, rng)
        features = factors.features(np.r_[pairs.row, users], np.r_[pairs.col, items])
        happened = np.r_[np.ones(pairs.nnz), np.zeros(len(users))]
        intercept, weights = _regress(features, happened)
        return cls(factors, intercept + float(np.log(len(users) / n_others)), weights)

    def of_pairs(self, user_rows: Rows, item_rows: Rows) -> Floats:
        """Probabilities, float64 (n,), of pairs in their order."""
        logits = self.intercept + self.factors.features(user_rows, item_rows) @ self.weights
        return np.asarray(expit(logits), np.float64)

    def inverse_weights(self, user_rows: Rows, item_rows: Rows, *, at_least: float = 0.01) -> Floats:
        """1 / max(P, at_least), float64 (n,): clipping bounds the variance at the price of some bias."""
        if not 0.0 < at_least <= 1.0:
            raise ValueError(f"a probability to clip at, not {at_least}")
        return np.asarray(1.0 / np.maximum(self.of_pairs(user_rows, item_rows), at_least), np.float64)


def draw_others(interactions: sp.csr_matrix, n: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Draw n pairs without interaction, uniformly and with repetition: int64 (n,) user and item rows."""
    pairs = _binary(interactions).tocoo()
    n_users, n_items = pairs.shape
    if pairs.nnz >= n_users * n_items:
        raise InputError("every pair has an interaction: there is none to draw")
    taken = np.unique(pairs.row.astype(np.int64) * n_items + pairs.col)
    # The r-th free cell lies r + (taken cells before it) along: no draw is ever thrown away.
    rank = rng.integers(0, n_users * n_items - len(taken), n)
    cells = rank + np.searchsorted(taken - np.arange(len(taken)), rank, side="right")
    return cells // n_items, cells % n_items


def area_under_curve(scores: npt.ArrayLike, happened: npt.ArrayLike) -> float:
    """Probability that a positive outscores a negative, ties half (Mann-Whitney); NaN without both kinds."""
    positive = np.asarray(happened, bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = float(rankdata(np.asarray(scores))[positive].sum())
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def _regress(features: Floats, happened: Floats) -> tuple[float, Floats]:
    """Intercept and weights of the most likely logistic model."""
    # Features differ in scale by orders of magnitude: solved on standard ones, told on the given ones.
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    table = np.column_stack([np.ones(len(features)), (features - centre) / scale])

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        logits = table @ coefficients
        value = float((np.logaddexp(0.0, logits) - happened * logits).mean())
        slope = table.T @ (expit(logits) - happened) / len(table)
        penalty = np.r_[0.0, coefficients[1:]]
        return value + 0.5 * _RIDGE * float(penalty @ penalty), slope + _RIDGE * penalty

    found = minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B")
    if not np.isfinite(found.x).all():
        raise InputError(f"the regression did not converge: {found.message}")
    weights = np.asarray(found.x[1:] / scale, np.float64)
    return float(found.x[0] - centre @ weights), weights


def _binary(interactions: sp.csr_matrix) -> sp.csr_matrix:
    """A copy with each pair once and 1 as its value."""
    pairs = sp.csr_matrix(interactions, dtype=np.float64, copy=True)
    pairs.sum_duplicates()
    pairs.data[:] = 1.0
    return pairs
