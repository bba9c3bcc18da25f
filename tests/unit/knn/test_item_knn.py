from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from factories import tiny_dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

from models.data.dataset import Dataset
from models.event_weights import pair_matrix
from models.knn.item_knn import Config, train, weigh
from models.knn.truncation import narrowed, strongest_of_each_row
from models.trained import TrainedModel
from service.bundle.ids import IntIds
from service.errors import InputError


def dense(model: TrainedModel) -> npt.NDArray[np.float32]:
    arrays = model.arrays
    n = len(arrays["indptr"]) - 1
    matrix = sp.csr_matrix((arrays["weights"], arrays["indices"], arrays["indptr"]), shape=(n, n))
    return np.asarray(matrix.toarray(), np.float32)


def by_hand(pairs: list[tuple[int, int]], n_users: int, n_items: int) -> Dataset:
    return Dataset(
        "hand",
        IntIds(np.arange(n_users)),
        IntIds(np.arange(n_items)),
        np.array([user for user, _ in pairs], np.int32),
        np.array([item for _, item in pairs], np.int32),
        np.ones(len(pairs), np.float32),
        None,
        None,
    )


def test_cosine_of_three_items_by_hand() -> None:
    # Item 0 is read by users 0 1 2, item 1 by 0 1, item 2 by 2, item 3 by nobody.
    data = by_hand([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 2)], 3, 4)
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2 / np.sqrt(3 * 2)
    expected[0, 2] = expected[2, 0] = 1 / np.sqrt(3)
    np.testing.assert_allclose(dense(train(data, Config())), expected, atol=1e-6)


def test_shrinkage_discounts_similarities_that_few_users_support() -> None:
    data = by_hand([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 2)], 3, 4)
    plain, shrunk = dense(train(data, Config())), dense(train(data, Config(shrinkage=2.0)))
    assert shrunk[0, 1] == pytest.approx(plain[0, 1] * 2 / 4)
    assert shrunk[0, 2] == pytest.approx(plain[0, 2] * 1 / 3)


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # implicit's own call of itself
@pytest.mark.parametrize(
    ("weighting", "reference"),
    [
        ("cosine", CosineRecommender(K=40)),
        ("tfidf", TFIDFRecommender(K=40)),
        ("bm25", BM25Recommender(K=40, K1=1.2, B=0.75)),
    ],
)
def test_similarities_are_those_of_implicit(weighting: Any, reference: Any) -> None:
    data = tiny_dataset(n_users=300)
    # Every item read: implicit's mean document length then leaves out nothing either.
    read = np.unique(data.item_rows)
    matrix = data.matrix(binary=True)[:, read].tocsr()
    reference.fit(matrix, show_progress=False)
    expected = reference.similarity.toarray()
    np.fill_diagonal(expected, 0)
    part = by_hand(list(zip(*matrix.nonzero(), strict=True)), 300, len(read))
    np.testing.assert_allclose(
        dense(train(part, Config(weighting=weighting, neighbours=40))), expected, rtol=1e-4, atol=1e-5
    )


def test_neighbours_are_of_the_same_taste_and_never_the_item_itself() -> None:
    data = tiny_dataset(n_users=300)
    model = train(data, Config(weighting="tfidf", neighbours=5))
    rows = np.repeat(np.arange(data.n_items), np.diff(model.arrays["indptr"]))
    assert (rows % 2 == model.arrays["indices"] % 2).all()
    assert (rows != model.arrays["indices"]).all()
    assert np.diff(model.arrays["indptr"]).max() == 5


def test_a_user_of_everything_says_nothing_under_tfidf() -> None:
    data = by_hand([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], 2, 3)
    weighted = weigh(data.matrix(), Config(weighting="tfidf")).toarray()
    assert (weighted >= 0).all()
    assert weighted[0].sum() == 0


def test_history_half_life_goes_to_serving_only_where_there_is_order() -> None:
    data = tiny_dataset()
    config = Config(history_half_life=3)
    assert train(data, config).parameters == {"history_half_life": 3.0}
    assert train(replace(data, times=None, time_kind=None), config).parameters == {}


@pytest.mark.parametrize(
    "config", [Config(neighbours=0), Config(days=0), Config(shrinkage=-1.0), Config(history_half_life=0)]
)
def test_settings_out_of_range_are_refused(config: Config) -> None:
    with pytest.raises(InputError):
        train(tiny_dataset(), config)


small = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([-2, -1, 0, 0.5, 1, 3]),
)


@given(matrix=small, width=st.integers(1, 13), cut=st.integers(1, 12))
def test_truncation_keeps_the_largest_magnitudes(
    matrix: npt.NDArray[np.float32], width: int, cut: int
) -> None:
    indptr, indices, weights = strongest_of_each_row((matrix[:cut], matrix[cut:]), width)
    assert len(indptr) == len(matrix) + 1
    for row, values in enumerate(matrix):
        own = slice(indptr[row], indptr[row + 1])
        # Largest magnitude first, the lower column among equals.
        order = np.lexsort((np.arange(len(values)), -np.abs(values)))[:width]
        expected = sorted(int(column) for column in order if values[column] != 0)
        assert indices[own].tolist() == expected
        np.testing.assert_array_equal(weights[own], values[expected])


@given(
    matrix=hnp.arrays(np.float32, (9, 9), elements=st.sampled_from([-2, -1, 0, 1, 3])),
    width=st.integers(1, 9),
)
def test_narrowing_is_truncating_from_the_start(matrix: npt.NDArray[np.float32], width: int) -> None:
    indptr, indices, weights = strongest_of_each_row([matrix], 9)
    wide: dict[str, npt.NDArray[Any]] = {"indptr": indptr, "indices": indices, "weights": weights}
    expected = strongest_of_each_row([matrix], width)
    for found, wanted in zip(narrowed(wide, width).values(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_window_of_days_learns_from_late_events_only() -> None:
    data = tiny_dataset()  # one event a day
    late = data.select(np.arange(len(data)) >= len(data) - 100)
    np.testing.assert_array_equal(dense(train(data, Config(days=100))), dense(train(late, Config())))


def test_recent_weights_are_one_over_days_plus_one() -> None:
    data = tiny_dataset()
    matrix = pair_matrix(data, "recent").toarray()
    assert data.times is not None
    days = (data.times.max() - data.times) // 86_400_000
    np.testing.assert_allclose(matrix[data.user_rows, data.item_rows], 1 / (days + 1), rtol=1e-6)
    undated = replace(data, time_kind="position")
    np.testing.assert_array_equal(
        pair_matrix(undated, "recent").toarray(), data.matrix(binary=True).toarray()
    )
