from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from factories import tiny_dataset

from models.data.dataset import Dataset
from models.knn import user_knn
from models.knn.user_knn import Config, train
from models.trained import TrainedModel
from service.bundle.ids import IntIds
from service.errors import InputError


def lists(model: TrainedModel) -> list[dict[int, float]]:
    arrays = model.arrays
    bounds = zip(arrays["indptr"][:-1], arrays["indptr"][1:], strict=True)
    return [
        dict(zip(arrays["items"][a:b].tolist(), arrays["scores"][a:b].tolist(), strict=True))
        for a, b in bounds
    ]


def by_hand(pairs: list[tuple[int, int]]) -> Dataset:
    users, items = np.array(pairs, np.int32).T
    ones = np.ones(len(pairs), np.float32)
    return Dataset("hand", IntIds(np.arange(5)), IntIds(np.arange(5)), users, items, ones, None, None)


def test_scores_of_four_users_by_hand() -> None:
    # 0 reads 0 1; 1 reads 0 1 2; 2 reads 1 3; 3 reads 4; user 4 reads nothing.
    data = by_hand([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 3), (3, 4)])
    found = lists(train(data, Config(idf=False)))
    assert found[0] == pytest.approx({2: 2 / np.sqrt(2 * 3), 3: 1 / np.sqrt(2 * 2)})
    assert list(found[0]) == [2, 3]
    assert found[3] == found[4] == {}
    assert lists(train(data, Config(idf=False, neighbours=1)))[0] == pytest.approx({2: 2 / np.sqrt(6)})
    assert lists(train(data, Config(idf=False, list_length=1)))[0] == pytest.approx({2: 2 / np.sqrt(6)})


def test_a_shared_favourite_of_everybody_says_nothing_with_idf() -> None:
    data = by_hand([(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (1, 2), (2, 3)])
    assert set(lists(train(data, Config(idf=True)))[0]) == {2}
    assert set(lists(train(data, Config(idf=False)))[0]) == {2, 3}


@pytest.mark.parametrize("cells", [1 << 24, 256])
def test_lists_hold_unread_items_of_ones_own_taste_best_first(
    monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(user_knn, "_BLOCK_CELLS", cells)  # in one block, or a user at a time
    data = tiny_dataset()
    seen: npt.NDArray[np.bool_] = data.matrix().toarray() > 0
    for user, listed in enumerate(lists(train(data, Config(half_life=5.0)))):
        assert bool(listed) == (user < 55)
        assert all(item % 2 == user % 2 and not seen[user, item] for item in listed)
        assert list(listed.values()) == sorted(listed.values(), reverse=True)


def test_too_many_users_to_compare_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_knn, "MAX_USERS", 54)
    with pytest.raises(InputError, match="55 have events, it takes up to 54"):
        train(tiny_dataset(), Config())


@pytest.mark.parametrize(
    "config", [Config(neighbours=0), replace(Config(), list_length=0), Config(half_life=0)]
)
def test_settings_out_of_range_are_refused(config: Config) -> None:
    with pytest.raises(InputError):
        train(tiny_dataset(), config)


@pytest.mark.parametrize("cells", [1 << 24, 256])
def test_lists_for_some_users_are_theirs_among_all(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(user_knn, "_BLOCK_CELLS", cells)
    data, asked = tiny_dataset(), np.array([3, 8, 30, 59])
    everybodys, theirs = lists(train(data, Config())), lists(train(data, Config(), users=asked))
    assert all(listed == (everybodys[user] if user in asked else {}) for user, listed in enumerate(theirs))
    assert theirs[3]


def test_centred_users_are_compared_by_pearsons_correlation() -> None:
    # User 1 weighs item 3 as their own mean, so it doesn't change how alike the two are; user 2 thinks otherwise.
    data = by_hand([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 4)])
    data = replace(data, weights=np.array([2, 2, 5, 1, 2, 6, 3, 5, 1, 3], np.float32))
    correlation = np.corrcoef([2, 2, 5], [1, 2, 6])[0, 1]
    model = train(data, Config(idf=False, centred=True, weights="given"))
    assert lists(model)[0] == pytest.approx({3: correlation * 3})


def test_centred_users_who_weigh_everything_alike_are_like_nobody() -> None:
    assert set(map(len, lists(train(tiny_dataset(), Config(centred=True))))) == {0}
