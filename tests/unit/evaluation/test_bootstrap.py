"""Intervals: seeded, around the value, as wide as theory says."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.bootstrap import PerUser, confidence_intervals


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    metric = {"m": PerUser.mean_of(np.random.default_rng(1).random(200))}
    assert confidence_intervals(metric, seed=3) == confidence_intervals(metric, seed=3)
    assert confidence_intervals(metric, seed=3) != confidence_intervals(metric, seed=4)


def test_interval_of_a_mean_is_the_normal_one_for_many_users() -> None:
    values = np.random.default_rng(2).random(5000)
    low, high = confidence_intervals({"m": PerUser.mean_of(values)})["m"]
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert (values.mean() - low, high - values.mean()) == (
        pytest.approx(error, rel=0.15),
        pytest.approx(error, rel=0.15),
    )


def test_chunks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = {"m": PerUser.mean_of(np.random.default_rng(5).random(90))}
    whole = confidence_intervals(metric, n_resamples=50)
    monkeypatch.setattr("models.evaluation.bootstrap._CELLS", 90 * 7)
    assert confidence_intervals(metric, n_resamples=50) == whole


def test_constant_metric_has_no_width() -> None:
    assert confidence_intervals({"m": PerUser.mean_of(np.full(30, 0.25))})["m"] == (0.25, 0.25)


def test_weighted_metric_resamples_users_not_places() -> None:
    # One user holds almost every place: with or without them the ratio is 1 or 0.
    metric = PerUser(np.array([100.0, 0.0]), np.array([100.0, 1.0]))
    assert metric.value == pytest.approx(100 / 101)
    assert confidence_intervals({"m": metric})["m"] == (0.0, 1.0)


def test_metric_of_nobody_has_no_interval() -> None:
    nobody = PerUser(np.zeros(4), np.zeros(4))
    assert np.isnan(nobody.value)
    assert confidence_intervals({"m": nobody}) == {}


def test_resample_that_misses_every_weighted_user_is_left_out() -> None:
    rare = PerUser(np.array([3.0, *[0.0] * 9]), np.array([1.0, *[0.0] * 9]))
    assert confidence_intervals({"m": rare})["m"] == (3.0, 3.0)


def test_selected_users_are_a_population_of_their_own() -> None:
    metric = PerUser.mean_of(np.array([1.0, 0.0, 1.0, 0.0]))
    assert metric.select(np.array([0, 2])).value == 1
