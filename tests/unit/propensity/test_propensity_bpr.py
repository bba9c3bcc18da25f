"""Weights by hand; weighted training learns, and recommends less of what everybody has."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.beyond_accuracy import Training, average_recommendation_popularity
from models.propensity.bpr import Bpr, Config, log_propensity_weights, train
from models.propensity.logistic import area_under_curve
from service.errors import InputError

CONFIG = Config(dim=8, epochs=25)


def popularity_of_lists(model: Bpr, interactions: sp.csr_matrix) -> float:
    """ARP of everybody's ten best unseen items."""
    scores = np.where(interactions.toarray() > 0, -np.inf, model.scores())
    counts = np.asarray(interactions.sum(axis=0)).ravel().astype(np.int64)
    training = Training(counts, counts, interactions.shape[0])
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :10].astype(np.int64)
    return average_recommendation_popularity(lists, training).value


def weights_of(interactions: sp.csr_matrix) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return log_propensity_weights(np.asarray(interactions.mean(axis=0)).ravel())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weighted_training_recommends_less_popular_items_and_its_loss_falls(
    biased: sp.csr_matrix, seed: int
) -> None:
    plain = train(biased, CONFIG, seed=seed)
    weighted = train(biased, CONFIG, item_weights=weights_of(biased), seed=seed)
    assert popularity_of_lists(weighted, biased) < 0.9 * popularity_of_lists(plain, biased)
    for model in (plain, weighted):
        assert model.losses[-1] < 0.8 * model.losses[0]


def test_weighted_training_still_finds_what_users_have_left_out(biased: sp.csr_matrix) -> None:
    pairs = biased.tocoo()
    kept = np.random.default_rng(3).random(pairs.nnz) < 0.8
    learnt = sp.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)
    scores = train(learnt, CONFIG, item_weights=weights_of(learnt)).scores()
    unseen = learnt.toarray() == 0
    assert area_under_curve(scores[unseen], biased.toarray()[unseen]) > 0.6


def test_first_loss_without_learning_is_that_of_a_coin(biased: sp.csr_matrix) -> None:
    still = Config(epochs=2, learning_rate=0.0)
    assert train(biased, still).losses == pytest.approx([np.log(2)] * 2, abs=0.01)


def test_weights_count_by_their_proportions_only(biased: sp.csr_matrix) -> None:
    config = Config(epochs=2)
    once, tenfold = (train(biased, config, item_weights=factor * weights_of(biased)) for factor in (1, 10))
    assert once.item_biases == pytest.approx(tenfold.item_biases)
    assert once.item_biases != pytest.approx(train(biased, config).item_biases)
    equal = train(biased, config, item_weights=np.full(biased.shape[1], 3.0))
    assert equal.item_biases == pytest.approx(train(biased, config).item_biases)


def test_equal_seeds_give_equal_vectors(biased: sp.csr_matrix) -> None:
    config = Config(epochs=1)
    first, second, other = (train(biased, config, seed=seed).item_vectors for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_log_propensity_weights_by_hand() -> None:
    propensities = [1.0, np.exp(-0.05), np.exp(-2.0), np.exp(-30.0), 0.0]
    assert log_propensity_weights(propensities) == pytest.approx([0.1, 0.1, 2.0, 10.0, 10.0])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_likelier_never_weighs_more(propensities: list[float]) -> None:
    weights = log_propensity_weights(sorted(propensities))
    assert (np.diff(weights) <= 0).all()
    assert ((weights >= 0.1) & (weights <= 10.0)).all()


@pytest.mark.parametrize(
    ("propensities", "low"), [([1.5], 0.1), ([float("nan")], 0.1), ([0.5], 0.0), ([0.5], 11.0)]
)
def test_weights_of_what_is_no_probability_are_refused(propensities: list[float], low: float) -> None:
    with pytest.raises(ValueError, match=r"probabilities|clipping"):
        log_propensity_weights(propensities, low=low)


def test_nothing_to_learn_from_and_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="no interactions"):
        train(sp.csr_matrix((3, 3)), CONFIG)
    for weights in ([1.0, 1.0], [1.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="weights above 0"):
            train(sp.csr_matrix(np.eye(3)), CONFIG, item_weights=weights)


def test_at_least_one_epoch_is_learned_and_no_more_when_the_time_is_over() -> None:
    pairs = sp.csr_matrix(np.eye(6) + np.eye(6, k=1))
    found = train(pairs, Config(dim=2, epochs=5, max_seconds=1e-9), seed=1)
    once = train(pairs, Config(dim=2, epochs=1), seed=1)
    assert len(found.losses) == 1
    np.testing.assert_array_equal(found.item_vectors, once.item_vectors)
    assert len(train(pairs, Config(dim=2, epochs=5), seed=1).losses) == 5
