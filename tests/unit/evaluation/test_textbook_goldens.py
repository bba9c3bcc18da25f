"""Known answers of handbooks, and the two variants of a competition's metric."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.competition import leaderboard_map, notebook_map
from models.evaluation.metrics import Relevant, accuracy
from models.evaluation.textbook import (
    average_precision,
    dcg,
    mean_absolute_error,
    mean_reciprocal_rank,
    mean_squared_error,
    ndcg,
)

GRADES = [3, 2, 3, 0, 1, 2]


def test_reciprocal_ranks_of_third_first_and_no_place_average_to_44_hundredths() -> None:
    assert mean_reciprocal_rank([3, 1, None]) == pytest.approx(0.44, abs=0.005)


def test_average_precision_at_six_of_hits_at_one_and_four_is_three_quarters() -> None:
    flags = [1, 0, 0, 1, 0, 0, 1]
    assert average_precision(flags, k=6) == pytest.approx(0.75)
    assert average_precision([0, 0, 0]) == 0


def test_exponential_gain_of_the_six_graded_documents() -> None:
    assert dcg(GRADES) == pytest.approx(13.848, abs=5e-4)
    assert dcg(sorted(GRADES, reverse=True)) == pytest.approx(14.595, abs=5e-4)
    assert ndcg(GRADES) == pytest.approx(0.9488, abs=5e-5)


def test_linear_gain_of_the_six_graded_documents() -> None:
    assert dcg(GRADES, gain="linear") == pytest.approx(6.861, abs=5e-4)
    assert ndcg(GRADES, gain="linear") == pytest.approx(0.9608, abs=5e-5)


def test_ideal_order_may_hold_documents_that_were_not_listed() -> None:
    with_missing = [3, 3, 3, 2, 2, 2, 1, 0]
    assert ndcg(GRADES, gain="linear", k=6, ideal=with_missing) == pytest.approx(0.785, abs=5e-4)
    assert ndcg([0, 0]) == 0


def test_both_gains_agree_on_binary_grades() -> None:
    flags = [1, 0, 1, 1, 0]
    assert ndcg(flags) == pytest.approx(ndcg(flags, gain="linear"))


def test_rating_errors() -> None:
    assert mean_absolute_error([4, 2, 5], [3, 2, 3]) == pytest.approx(1)
    assert mean_squared_error([4, 2, 5], [3, 2, 3]) == pytest.approx(5 / 3)
    with pytest.raises(ValueError, match="one length"):
        mean_absolute_error([1, 2], [1])


def test_leaderboard_takes_12_for_a_hit_on_123() -> None:
    recommended = [[12, 40], [70, 41], [90, 42]]
    true_items = [[123], [70], [90, 55, 66]]
    codes = Relevant.of_pairs(np.array([0, 1, 2, 2, 2]), np.array([123, 70, 90, 55, 66]), 3)
    strict = accuracy(np.array(recommended), codes, 10)["MAPr@10"]
    assert strict.mean() == pytest.approx(0.444, abs=5e-4)
    assert leaderboard_map(recommended, true_items).mean() == pytest.approx(0.778, abs=5e-4)


def test_notebook_form_counts_hits_beyond_the_tenth_place_and_the_strict_one_does_not() -> None:
    recommended = np.arange(100, 120)[None, :]
    truth = Relevant.of_pairs(np.zeros(3, int), np.array([101, 114, 999]), 1)
    assert accuracy(recommended, truth, 10)["MAPr@10"][0] == pytest.approx((1 / 2) / 3)
    assert notebook_map(recommended, truth)[0] == pytest.approx((1 / 2 + 2 / 15) / 3)
    assert notebook_map(recommended[:, :10], truth)[0] == pytest.approx((1 / 2) / 3)
    assert notebook_map(np.empty((1, 0), np.int64), truth)[0] == 0


def test_leaderboard_does_not_match_across_two_true_items() -> None:
    assert leaderboard_map([[12]], [[1, 2]]).tolist() == [0]


def test_leaderboard_equals_the_strict_form_where_no_id_is_part_of_another() -> None:
    recommended, true_items = [[10, 11, 12, 13]], [[11, 13, 99]]
    strict = accuracy(
        np.array(recommended), Relevant.of_pairs(np.zeros(3, int), np.array(true_items[0]), 1), 4
    )
    assert leaderboard_map(recommended, true_items)[0] == pytest.approx(strict["MAPr@4"][0])


def test_several_items_may_hit_one_true_item_on_the_leaderboard() -> None:
    assert leaderboard_map([[1, 12, 123]], [[123]])[0] == pytest.approx(3)
