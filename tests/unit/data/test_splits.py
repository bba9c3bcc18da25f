from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.dataset import Dataset, TimeKind
from models.data.splits import (
    DAY_MS,
    Split,
    global_time,
    hold_out_users,
    last_fraction,
    leave_last_out,
    leave_p_out,
    random_holdout,
    time_range_folds,
    two_level,
    user_cold,
    user_folds,
    validation_split,
    week_edges,
)
from service.bundle.ids import IntIds
from service.errors import InputError

N_USERS, N_ITEMS = 8, 6


def dataset_of(rows: list[tuple[int, int, int]], time_kind: TimeKind | None = "timestamp") -> Dataset:
    """Events (user row, item row, time), each with a rating that is its number: a name to find it by."""
    users, items, times = np.array(rows, np.int64).reshape(-1, 3).T
    n = len(rows)
    return Dataset(
        name="toy",
        user_ids=IntIds(np.arange(max(N_USERS, int(users.max(initial=0)) + 1)) * 3),
        item_ids=IntIds(np.arange(N_ITEMS)),
        user_rows=users.astype(np.int32),
        item_rows=items.astype(np.int32),
        weights=np.ones(n, np.float32),
        times=None if time_kind is None else times,
        time_kind=time_kind,
        ratings=np.arange(n, dtype=np.float32),
    )


def names(dataset: Dataset) -> list[int]:
    assert dataset.ratings is not None
    return [int(name) for name in dataset.ratings]


def times_of(dataset: Dataset) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    assert dataset.times is not None
    return dataset.times


def adds_up(whole: Dataset, split: Split) -> None:
    train, test = set(names(split.train)), set(names(split.test))
    assert not train & test
    assert len(train) == len(split.train)
    assert len(test) == len(split.test)
    assert len(split.train) + len(split.test) + sum(split.dropped.values()) == len(whole)
    assert all(count > 0 for count in split.dropped.values())


EVENTS = st.lists(
    st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(0, 40 * DAY_MS)),
    min_size=1,
    max_size=60,
)
FEW_TIMES = st.lists(
    st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(0, 4)),
    min_size=1,
    max_size=60,
)


@given(rows=EVENTS | FEW_TIMES, quantile=st.floats(0.05, 0.95), warm=st.booleans(), unseen=st.booleans())
def test_after_a_time_split_all_of_test_is_later_than_all_of_train(
    rows: list[tuple[int, int, int]], quantile: float, warm: bool, unseen: bool
) -> None:
    whole = dataset_of(rows)
    split = global_time(whole, quantile=quantile, warm=warm, unseen=unseen)
    adds_up(whole, split)
    assert len(split.train)
    if len(split.test):
        assert times_of(split.train).max() < times_of(split.test).min()
    if warm:
        assert set(split.test.user_rows) <= set(split.train.user_rows)
        assert set(split.test.item_rows) <= set(split.train.item_rows)
    if unseen:
        trained = set(zip(split.train.user_rows, split.train.item_rows, strict=True))
        assert not trained & set(zip(split.test.user_rows, split.test.item_rows, strict=True))


@given(rows=EVENTS, at=st.integers(0, 40 * DAY_MS))
def test_a_split_at_a_moment_puts_that_moment_in_test(rows: list[tuple[int, int, int]], at: int) -> None:
    whole = dataset_of(rows)
    split = global_time(whole, at=at)
    adds_up(whole, split)
    assert (times_of(split.train) < at).all()
    assert (times_of(split.test) >= at).all()
    assert not split.dropped


def test_events_that_share_the_quantiles_time_stay_together() -> None:
    split = global_time(dataset_of([(0, 0, 1), (1, 1, 5), (2, 2, 5), (3, 3, 5), (4, 4, 9)]), quantile=0.5)
    assert names(split.train) == [0, 1, 2, 3]
    assert names(split.test) == [4]


@given(rows=EVENTS | FEW_TIMES, n=st.integers(1, 3))
def test_leave_last_out_takes_the_last_of_each_user_and_nobodys_all(
    rows: list[tuple[int, int, int]], n: int
) -> None:
    whole = dataset_of(rows)
    split = leave_last_out(whole, n)
    adds_up(whole, split)
    assert not split.dropped
    counts = Counter(whole.user_rows.tolist())
    assert Counter(split.test.user_rows.tolist()) == {user: n for user, count in counts.items() if count > n}
    assert set(split.train.user_rows) == set(whole.user_rows)
    later_than_train(split)


@given(rows=EVENTS | FEW_TIMES, fraction=st.floats(0.05, 0.9))
def test_last_fraction_takes_the_tail_of_each_user(rows: list[tuple[int, int, int]], fraction: float) -> None:
    whole = dataset_of(rows, "position")
    split = last_fraction(whole, fraction)
    adds_up(whole, split)
    counts = Counter(whole.user_rows.tolist())
    expected = {user: max(int(count * fraction), 1) for user, count in counts.items() if count > 1}
    assert Counter(split.test.user_rows.tolist()) == expected
    assert set(split.train.user_rows) == set(whole.user_rows)
    later_than_train(split)


def later_than_train(split: Split) -> None:
    """Of each user, no test event is earlier than a train event, in (time, file order)."""
    for user in set(split.test.user_rows.tolist()):
        train, test = split.train.user_rows == user, split.test.user_rows == user
        last = max(zip(times_of(split.train)[train], np.array(names(split.train))[train], strict=True))
        first = min(zip(times_of(split.test)[test], np.array(names(split.test))[test], strict=True))
        assert last < first


@given(rows=EVENTS, seed=st.integers(0, 99), fraction=st.floats(0.05, 0.9))
def test_random_holdout_takes_a_share_of_each_user(
    rows: list[tuple[int, int, int]], seed: int, fraction: float
) -> None:
    whole = dataset_of(rows, None)
    split = random_holdout(whole, fraction, seed=seed)
    adds_up(whole, split)
    counts = Counter(whole.user_rows.tolist())
    expected = {user: max(int(count * fraction), 1) for user, count in counts.items() if count > 1}
    assert Counter(split.test.user_rows.tolist()) == expected
    assert names(random_holdout(whole, fraction, seed=seed).test) == names(split.test)


def test_random_holdout_is_random_and_its_seed_matters() -> None:
    whole = dataset_of([(0, i % N_ITEMS, i) for i in range(200)], None)
    taken = names(random_holdout(whole, 0.5, seed=1).test)
    assert taken != names(random_holdout(whole, 0.5, seed=2).test)
    assert 60 < sum(taken) / len(taken) < 140


@given(rows=EVENTS, seed=st.integers(0, 99), p=st.integers(1, 3))
def test_leave_p_out_takes_p_of_each_user_that_has_more(
    rows: list[tuple[int, int, int]], seed: int, p: int
) -> None:
    whole = dataset_of(rows, None)
    split = leave_p_out(whole, p, seed=seed)
    adds_up(whole, split)
    counts = Counter(whole.user_rows.tolist())
    assert Counter(split.test.user_rows.tolist()) == {user: p for user, count in counts.items() if count > p}


@given(rows=EVENTS, seed=st.integers(0, 99), first=st.none() | st.integers(1, 3))
def test_cold_users_are_absent_from_train(
    rows: list[tuple[int, int, int]], seed: int, first: int | None
) -> None:
    whole = dataset_of(rows)
    split = user_cold(whole, 0.4, first=first, seed=seed)
    adds_up(whole, split)
    assert not set(split.train.user_rows) & set(split.test.user_rows)
    assert set(split.test.item_rows) <= set(split.train.item_rows)
    if first is not None:
        assert max(Counter(split.test.user_rows.tolist()).values(), default=0) <= first


def test_a_cold_users_test_is_their_first_events_among_known_items() -> None:
    whole = dataset_of([(0, 0, 1), (0, 1, 2), (1, 0, 9), (1, 2, 3), (1, 1, 5), (1, 0, 7)])
    split = hold_out_users(whole, np.arange(N_USERS) == 1, first=3)
    assert names(split.train) == [0, 1]
    assert names(split.test) == [4, 5]
    assert dict(split.dropped) == {"beyond_first": 1, "cold_item": 1}


def test_the_hash_that_chooses_cold_users_is_fair_and_stays_as_the_data_grows() -> None:
    rows = [(user, user % N_ITEMS, user) for user in range(4000)]
    large = user_cold(dataset_of(rows), 0.25, seed=5)
    small = user_cold(dataset_of(rows[:1000]), 0.25, seed=5)
    assert 0.22 < len(large.test) / 4000 < 0.28
    assert set(small.test.user_rows) == {user for user in large.test.user_rows if user < 1000}
    assert set(user_cold(dataset_of(rows), 0.25, seed=6).test.user_rows) != set(large.test.user_rows)


@given(rows=EVENTS, k=st.integers(2, 5), seed=st.integers(0, 99))
def test_user_folds_test_every_event_exactly_once(
    rows: list[tuple[int, int, int]], k: int, seed: int
) -> None:
    whole = dataset_of(rows)
    folds = user_folds(whole, k, seed=seed)
    assert len(folds) == k
    for fold in folds:
        adds_up(whole, fold)
        assert not set(fold.train.user_rows) & set(fold.test.user_rows)
    assert sorted(name for fold in folds for name in names(fold.test)) == list(range(len(rows)))


@given(rows=EVENTS, quantile=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_the_second_level_learns_from_later_events_and_is_judged_by_other_users(
    rows: list[tuple[int, int, int]], quantile: float, seed: int
) -> None:
    whole = dataset_of(rows)
    first, second = two_level(whole, quantile=quantile, valid_share=0.4, seed=seed)
    adds_up(whole, first)
    adds_up(first.test, second)
    assert not set(second.train.user_rows) & set(second.test.user_rows)
    if len(second.train):
        assert times_of(first.train).max() < times_of(second.train).min()


def day(month: int, of: int) -> int:
    return int(datetime(2021, month, of, tzinfo=UTC).timestamp() * 1000)


def test_the_last_three_weeks_of_kion_run_from_sunday_to_sunday() -> None:
    whole = dataset_of([(0, 0, day(3, 13)), (0, 1, day(8, 22))])
    assert week_edges(whole, 3) == [day(8, 1), day(8, 8), day(8, 15), day(8, 22)]
    whole = dataset_of([(0, 0, day(3, 13)), (0, 1, day(8, 20))])
    assert week_edges(whole, 3) == [day(8, 1), day(8, 8), day(8, 15)]


def test_a_fold_counts_what_it_leaves_out() -> None:
    start, end = day(8, 1), day(8, 8)
    whole = dataset_of(
        [
            (0, 0, start - 1),
            (1, 1, start - DAY_MS),
            (0, 0, start),  # known pair
            (0, 1, start),  # kept
            (1, 0, end - 1),  # kept
            (2, 0, start),  # new user
            (2, 3, start),  # new user again
            (1, 4, start),  # new item
            (0, 4, start),  # new item again
            (0, 1, end),  # after
        ]
    )
    (fold,) = time_range_folds(whole, [start, end])
    assert names(fold.split.train) == [0, 1]
    assert names(fold.split.test) == [3, 4]
    assert (fold.new_users, fold.new_items, fold.known_interactions) == (1, 1, 1)
    assert dict(fold.split.dropped) == {"after_range": 1, "cold_user": 2, "cold_item": 2, "seen_pair": 1}
    adds_up(whole, fold.split)


@given(
    rows=EVENTS, edges=st.lists(st.integers(0, 40 * DAY_MS), min_size=2, max_size=5, unique=True).map(sorted)
)
def test_folds_learn_only_from_before_what_they_test(
    rows: list[tuple[int, int, int]], edges: list[int]
) -> None:
    whole = dataset_of(rows)
    folds = time_range_folds(whole, edges)
    assert [(fold.start, fold.end) for fold in folds] == list(pairwise(edges))
    for fold in folds:
        adds_up(whole, fold.split)
        assert (times_of(fold.split.train) < fold.start).all()
        assert ((times_of(fold.split.test) >= fold.start) & (times_of(fold.split.test) < fold.end)).all()
        assert names(fold.split.train) == [
            name for name, (_, _, time) in enumerate(rows) if time < fold.start
        ]
        known = set(zip(fold.split.train.user_rows, fold.split.train.item_rows, strict=True))
        assert not known & set(zip(fold.split.test.user_rows, fold.split.test.item_rows, strict=True))
        assert set(fold.split.test.user_rows) <= set(fold.split.train.user_rows)
        assert set(fold.split.test.item_rows) <= set(fold.split.train.item_rows)


def test_validation_follows_the_kind_of_time_the_data_has() -> None:
    rows = [
        (user, (user + turn) % N_ITEMS, 100 * turn + user % 100) for user in range(400) for turn in range(6)
    ]
    assert (
        validation_split(dataset_of(rows)).name == "last_fraction"
    )  # the last tenth of time knows few users
    many = [(user, (user + turn) % N_ITEMS, turn) for user in range(400) for turn in range(6)]
    assert (
        validation_split(replace(dataset_of(many), times=np.tile(np.r_[:5, 9], 400))).name == "last_fraction"
    )
    assert validation_split(dataset_of(rows, "position")).name == "last_fraction"
    assert validation_split(dataset_of(rows, None)).name == "random_holdout"


def test_validation_splits_by_time_where_enough_warm_users_are_left() -> None:
    rows = [(user, turn % N_ITEMS, 1000 * turn + user) for user in range(4000) for turn in range(6)]
    split = validation_split(dataset_of(rows))
    assert split.name == "global_time"
    assert len(np.unique(split.test.user_rows)) >= 300
    adds_up(dataset_of(rows), split)


@given(rows=EVENTS, time_kind=st.sampled_from(["timestamp", "position", None]), seed=st.integers(0, 9))
def test_validation_never_asks_for_what_was_seen(
    rows: list[tuple[int, int, int]], time_kind: TimeKind | None, seed: int
) -> None:
    whole = dataset_of(rows, time_kind)
    split = validation_split(whole, seed=seed)
    adds_up(whole, split)
    known = set(zip(split.train.user_rows, split.train.item_rows, strict=True))
    assert not known & set(zip(split.test.user_rows, split.test.item_rows, strict=True))
    counts = Counter(whole.user_rows.tolist())
    assert all(counts[user] > 1 for user in split.test.user_rows.tolist())


def test_what_makes_no_sense_is_refused() -> None:
    timeless, timed = dataset_of([(0, 0, 0)], "position"), dataset_of([(0, 0, 0)])
    with pytest.raises(InputError, match="needs timestamps"):
        global_time(timeless, quantile=0.5)
    with pytest.raises(InputError, match="either a quantile or a moment"):
        global_time(timed)
    with pytest.raises(InputError, match="rising edges"):
        time_range_folds(timed, [5, 5])
    with pytest.raises(InputError, match="between 0 and 1"):
        last_fraction(timed, 1.0)
    with pytest.raises(InputError, match="at least one"):
        leave_last_out(timed, 0)
    with pytest.raises(InputError, match="at least 2 folds"):
        user_folds(timed, 1, seed=0)
