from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import tiny_dataset

from models.data.dataset import Dataset
from models.ease import ease
from models.ease.ease import Config, train
from service.bundle.ids import IntIds
from service.errors import InputError


def test_weights_are_the_closed_form() -> None:
    data = tiny_dataset(n_users=200)
    dense = train(data, Config(regularization=20.0)).arrays["dense"]
    matrix = data.matrix(binary=True).toarray().astype(np.float64)
    read = np.flatnonzero(matrix.sum(axis=0))
    inverse = np.linalg.inv(matrix[:, read].T @ matrix[:, read] + 20.0 * np.eye(len(read)))
    expected = np.eye(len(read)) - inverse / np.diag(inverse)
    np.testing.assert_allclose(dense[np.ix_(read, read)], expected, atol=1e-5)
    assert dense.dtype == np.float32
    assert (np.diag(dense) == 0).all()


def test_items_without_events_neither_recommend_nor_are_recommended() -> None:
    data = tiny_dataset()
    silent = data.select(data.item_rows != 4)
    dense = train(silent, Config(regularization=20.0)).arrays["dense"]
    assert not dense[4].any()
    assert not dense[:, 4].any()


def test_users_are_offered_items_of_their_own_taste() -> None:
    data = tiny_dataset(n_users=200)
    seen = data.matrix(binary=True).toarray()[:195]
    scores = seen @ train(data, Config(regularization=20.0)).arrays["dense"]
    best = np.argsort(-np.where(seen > 0, -np.inf, scores), axis=1)[:, :5]
    assert (best % 2 == (np.arange(195) % 2)[:, None]).mean() > 0.95


def test_a_width_keeps_the_strongest_weights_of_each_row() -> None:
    data = tiny_dataset(n_users=200).select(tiny_dataset(n_users=200).item_rows != 4)
    whole = train(data, Config(regularization=20.0)).arrays["dense"]
    narrow = train(data, Config(regularization=20.0, width=3)).arrays
    assert np.diff(narrow["indptr"]).max() == 3
    assert narrow["indptr"][5] == narrow["indptr"][4]
    for row in (0, 7, 39):
        own = slice(narrow["indptr"][row], narrow["indptr"][row + 1])
        strongest = np.sort(np.argsort(-np.abs(whole[row]), kind="stable")[:3])
        assert narrow["indices"][own].tolist() == strongest.tolist()
        np.testing.assert_array_equal(narrow["weights"][own], whole[row, strongest])


def test_single_and_double_precision_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_dataset(n_users=200)
    double = train(data, Config(regularization=20.0)).arrays["dense"]
    monkeypatch.setattr(ease, "DOUBLE_ITEMS", 10)
    monkeypatch.setattr(ease, "DENSE_ITEMS", 10)
    monkeypatch.setattr(ease, "_ROWS_AT_ONCE", 7)  # blocks that do not divide the matrix
    single = train(data, Config(regularization=20.0, width=0)).arrays["dense"]
    np.testing.assert_allclose(single, double, atol=1e-4)
    assert "indptr" in train(data, Config(regularization=20.0)).arrays


def test_a_catalogue_too_large_to_invert_is_refused_before_the_attempt() -> None:
    n = ease.MAX_ITEMS + 1
    data = Dataset(
        "wide",
        IntIds(np.arange(2)),
        IntIds(np.arange(n)),
        np.zeros(n, np.int32),
        np.arange(n, dtype=np.int32),
        np.ones(n, np.float32),
        None,
        None,
    )
    with pytest.raises(InputError, match=r"30001 items with events .*leave 'ease' out of --models"):
        train(data, Config())


def test_regularization_must_be_positive() -> None:
    with pytest.raises(InputError, match="regularization"):
        train(tiny_dataset(), replace(Config(), regularization=0.0))
