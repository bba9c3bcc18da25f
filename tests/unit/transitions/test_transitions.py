from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from factories import read_in_order, tiny_dataset
from hypothesis import given
from hypothesis import strategies as st

from models.build.build import chosen_models
from models.trained import TrainedModel
from models.transitions import transitions
from models.transitions.transitions import MAX_WINDOW, Config, counted, train
from service.errors import InputError

PLAIN = Config(window=1, shrinkage=0.0, history_half_life=None)
"""The Markov chain itself: the very next item, by conditional probability."""

Readings = list[list[int]]


def dense(model: TrainedModel) -> npt.NDArray[np.float32]:
    arrays = model.arrays
    n = len(arrays["indptr"]) - 1
    matrix = sp.csr_matrix((arrays["weights"], arrays["indices"], arrays["indptr"]), shape=(n, n))
    return np.asarray(matrix.toarray(), np.float32)


def pair_by_pair(readings: Readings, n_items: int, config: Config) -> npt.NDArray[np.float64]:
    counts = np.zeros((n_items, n_items))
    for items in readings:
        for here, item in enumerate(items):
            for gap, later in enumerate(items[here + 1 : here + 1 + config.window]):
                counts[item, later] += 2.0 ** (-gap / config.gap_half_life)
    counts = counts + config.backward * counts.T
    np.fill_diagonal(counts, 0.0)
    return counts


def test_a_chain_leads_from_each_item_to_its_next() -> None:
    weights = dense(train(read_in_order([[0, 1, 2], [0, 1, 2], [0, 1, 3]], 5), PLAIN))
    expected = np.zeros((5, 5))
    expected[0, 1] = 1.0
    expected[1, 2], expected[1, 3] = 2 / 3, 1 / 3
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_the_order_is_that_of_time_not_of_the_file() -> None:
    forwards = read_in_order([[0, 1, 2]], 3)
    shuffled = forwards.select(np.array([2, 0, 1]))
    np.testing.assert_array_equal(dense(train(shuffled, PLAIN)), dense(train(forwards, PLAIN)))


def test_one_user_never_leads_to_the_next() -> None:
    assert not dense(train(read_in_order([[0], [1], [2]], 3), Config())).any()


def test_later_events_count_half_for_every_half_life() -> None:
    counts = counted(read_in_order([[0, 1, 2, 3]], 4), Config(window=2, gap_half_life=1.0)).toarray()
    assert counts[0].tolist() == [0.0, 1.0, 0.5, 0.0]


def test_an_item_read_again_does_not_follow_itself() -> None:
    counts = counted(read_in_order([[0, 0, 1, 0]], 2), Config(window=3, gap_half_life=1.0)).toarray()
    assert (np.diag(counts) == 0).all()
    assert counts[0, 1] == pytest.approx(0.5 + 1.0)


def test_backward_counts_make_the_order_matter_less() -> None:
    data = read_in_order([[0, 1, 2]], 3)
    assert counted(data, replace(PLAIN, backward=0.25)).toarray()[1, 0] == pytest.approx(0.25)
    both = counted(data, replace(PLAIN, backward=1.0)).toarray()
    np.testing.assert_array_equal(both, both.T)


def test_shrinkage_mistrusts_items_that_few_events_follow() -> None:
    data = read_in_order([[0, 1], [2, 3], [2, 3], [2, 3]], 4)
    plain, shrunk = dense(train(data, PLAIN)), dense(train(data, replace(PLAIN, shrinkage=1.0)))
    assert plain[0, 1] == plain[2, 3] == 1.0
    assert shrunk[0, 1] == pytest.approx(1 / 2)
    assert shrunk[2, 3] == pytest.approx(3 / 4)


def test_a_discount_prefers_what_follows_this_item_to_what_follows_all() -> None:
    # Item 3 follows everything, item 1 follows item 0 alone, and less often.
    data = read_in_order([[0, 3], [0, 3], [0, 3], [0, 1], [0, 1], [2, 3], [4, 3], [5, 3]], 6)
    plain, discounted = dense(train(data, PLAIN)), dense(train(data, replace(PLAIN, discount=1.0)))
    assert plain[0, 3] > plain[0, 1]
    assert discounted[0, 3] < discounted[0, 1]
    assert discounted[0, 1] == pytest.approx(plain[0, 1] / 2)


@given(
    readings=st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=6),
    window=st.integers(1, 10),
    gap_half_life=st.sampled_from([0.5, 1.0, 3.0]),
    backward=st.sampled_from([0.0, 0.3, 1.0]),
    pairs_at_once=st.integers(1, 40),
)
def test_counts_are_those_of_looking_at_every_pair_however_they_are_cut(
    readings: Readings, window: int, gap_half_life: float, backward: float, pairs_at_once: int
) -> None:
    config = Config(window=window, gap_half_life=gap_half_life, backward=backward)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transitions, "_PAIRS_AT_ONCE", pairs_at_once)
        counts = counted(read_in_order(readings, 7), config).toarray()
    np.testing.assert_allclose(counts, pair_by_pair(readings, 7, config), rtol=1e-5)


@pytest.mark.parametrize("width", [1, 3, 7, 40])
def test_a_row_keeps_its_strongest_entries_in_ascending_columns(width: int) -> None:
    data = tiny_dataset(n_users=200)
    whole = dense(train(data, Config(neighbours=40)))
    model = train(data, Config(neighbours=width))
    indptr, indices = model.arrays["indptr"], model.arrays["indices"]
    for row in range(data.n_items):
        own = indices[indptr[row] : indptr[row + 1]]
        strongest = np.argsort(-whole[row], kind="stable")[:width]
        assert own.tolist() == sorted(strongest[whole[row, strongest] > 0].tolist())
    kept = dense(model)
    np.testing.assert_array_equal(kept[kept > 0], whole[kept > 0])


def test_arrays_are_of_the_types_a_bundle_holds_and_equal_for_every_seed() -> None:
    first, second = (train(tiny_dataset(), Config(), seed=seed) for seed in (0, 1))
    types = {role: array.dtype.str for role, array in first.arrays.items()}
    assert types == {"indptr": "<i8", "indices": "<i4", "weights": "<f4"}
    for role, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[role])
    assert first.parameters == {"history_half_life": 2.0}


def test_data_without_events_gives_no_transitions() -> None:
    assert not dense(train(read_in_order([[]], 3), Config())).any()


def test_data_without_order_is_refused_and_left_out_of_a_build() -> None:
    unordered = replace(tiny_dataset(), times=None, time_kind=None)
    with pytest.raises(InputError, match=r"no order.*--models"):
        train(unordered, Config())
    assert "transitions" not in chosen_models(unordered, None)
    assert "transitions" in chosen_models(tiny_dataset(), None)
    with pytest.raises(
        InputError, match="--models transitions: not with this data: its events have no order"
    ):
        chosen_models(unordered, ["transitions"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"window": MAX_WINDOW + 1},
        {"neighbours": 0},
        {"gap_half_life": 0.0},
        {"gap_half_life": float("nan")},
        {"gap_half_life": float("inf")},
        {"shrinkage": -1.0},
        {"backward": 1.5},
        {"discount": -0.1},
        {"history_half_life": 0.0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        train(tiny_dataset(), replace(Config(), **wrong))
