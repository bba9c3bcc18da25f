"""Splits of events into what a model may learn from and what it is judged by. Nothing later leaks into train.

Test keeps only what the split's name says; every event in neither part is counted in `Split.dropped`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset
from service.errors import InputError

DAY_MS = 86_400_000
MIN_WARM_USERS = 300
"""Fewer test users than this say too little about a model to choose by."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """Two data sets over the same ids. `dropped`: events in neither, by reason."""

    name: str
    train: Dataset
    test: Dataset
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of `time_range_folds`; start and end are milliseconds since 1970 UTC, test is [start, end)."""

    split: Split
    start: int
    end: int
    new_users: int
    """Users of the test range with no event before it."""
    new_items: int
    """Items of the remaining test events with no event before the range."""
    known_interactions: int
    """Test events of a pair that occurred before the range."""


def global_time(
    dataset: Dataset,
    *,
    quantile: float | None = None,
    at: int | None = None,
    warm: bool = False,
    unseen: bool = False,
) -> Split:
    """Split at one moment: train is before `at` (ms), test from it on.

    With `quantile` the moment is just after the linear-interpolated quantile of all event times, so that
    events that share the quantile's time are all in train. warm: test keeps users and items that train knows.
    unseen: test keeps pairs that train lacks. Raises InputError where the data has no comparable times.
    """
    times = _timestamps(dataset)
    if (quantile is None) == (at is None):
        raise InputError("a time split takes either a quantile or a moment")
    if at is None:
        if not len(times):
            raise InputError("a time split of no events")
        at = int(np.floor(np.quantile(times, quantile or 0.0))) + 1
    return _split("global_time", dataset, times < at, times >= at, warm=warm, unseen=unseen)


def week_edges(dataset: Dataset, n_folds: int) -> list[int]:
    """Find the edges (ms) of the last `n_folds` weeks, Sunday to Sunday.

    They are the first Sunday from `n_folds` weeks before the last day on, and those after it, as far as the
    data goes.
    """
    times = _timestamps(dataset)
    if not len(times):
        raise InputError("a time split of no events")
    first = int(times.max()) // DAY_MS - 7 * n_folds
    first += (3 - first) % 7  # day 0 was a Thursday, so Sundays are days 3, 10, ...
    edges = [(first + 7 * week) * DAY_MS for week in range(n_folds + 1)]
    return [edge for edge in edges if times.min() <= edge <= times.max()]


def time_range_folds(dataset: Dataset, edges: Sequence[int]) -> list[Fold]:
    """Fold by time ranges: train is before an edge, test from it up to the next one.

    Test drops cold users, then cold items, then pairs seen in train, and says how many. Raises InputError
    where there are fewer than two edges or they don't rise.
    """
    times = _timestamps(dataset)
    if len(edges) < 2 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise InputError("time-range folds take at least two rising edges")
    folds = []
    for start, end in itertools.pairwise(edges):
        train, test = times < start, (times >= start) & (times < end)
        split = _split("time_range", dataset, train, test, warm=True, unseen=True, rest="after_range")
        known_users = _occurs(dataset.user_rows[train], dataset.n_users)
        known_items = _occurs(dataset.item_rows[train], dataset.n_items)
        users, items = dataset.user_rows[test], dataset.item_rows[test]
        items = items[known_users[users]]
        folds.append(
            Fold(
                split,
                start,
                end,
                new_users=len(np.unique(users[~known_users[users]])),
                new_items=len(np.unique(items[~known_items[items]])),
                known_interactions=split.dropped.get("seen_pair", 0),
            )
        )
    return folds


def leave_last_out(dataset: Dataset, n: int = 1) -> Split:
    """Test is the last `n` events of each user that has more than `n`; others' events are all in train."""
    if n < 1:
        raise InputError("leave-last-out leaves at least one event out")
    from_end, counts = _places(dataset)
    test = (from_end < n) & (counts > n)
    return _split("leave_last_out", dataset, ~test, test)


def last_fraction(dataset: Dataset, fraction: float, *, unseen: bool = False) -> Split:
    """Test is each user's last floor(fraction * count) events, at least 1; a single event stays in train."""
    from_end, counts = _places(dataset)
    test = (from_end < _share(counts, fraction)) & (counts > 1)
    return _split("last_fraction", dataset, ~test, test, unseen=unseen)


def random_holdout(dataset: Dataset, fraction: float, *, seed: int, unseen: bool = False) -> Split:
    """Test is floor(fraction * count) random events of each user, at least 1; a single one stays in train."""
    place, counts = _shuffled_places(dataset, seed)
    test = (place < _share(counts, fraction)) & (counts > 1)
    return _split("random_holdout", dataset, ~test, test, unseen=unseen)


def leave_p_out(dataset: Dataset, p: int, *, seed: int) -> Split:
    """Test is `p` events drawn at random from each user that has more than `p`."""
    if p < 1:
        raise InputError("leave-p-out leaves at least one event out")
    place, counts = _shuffled_places(dataset, seed)
    test = (place < p) & (counts > p)
    return _split("leave_p_out", dataset, ~test, test)


def hold_out_users(dataset: Dataset, cold: Mask, *, first: int | None = None) -> Split:
    """Keep all events of users `cold` (bool, (n_users,)) out of train.

    Test is the first `first` events of each of them (None: all) among items that train knows.
    """
    held = cold[dataset.user_rows]
    early = held if first is None else held & (places_from_start(dataset) < first)
    known = _occurs(dataset.item_rows[~held], dataset.n_items)[dataset.item_rows]
    dropped = {"beyond_first": int((held & ~early).sum()), "cold_item": int((early & ~known).sum())}
    return Split("user_cold", dataset.select(~held), dataset.select(early & known), _counted(dropped))


def user_cold(dataset: Dataset, share: float, *, first: int | None = None, seed: int) -> Split:
    """Hold out about `share` of the users; see `hold_out_users`.

    They are chosen by a hash of id and seed, so that a user's side stays as the data grows.
    """
    return hold_out_users(dataset, _hashed_share(dataset, seed) < share, first=first)


def item_cold(dataset: Dataset, share: float, *, seed: int) -> Split:
    """Hold out about `share` of the items: test is all of their events by users that train still knows.

    They are drawn by `seed` among the items with events.
    """
    items = np.unique(dataset.item_rows)
    cold = np.zeros(dataset.n_items, np.bool_)
    cold[np.random.default_rng(seed).choice(items, round(len(items) * share), replace=False)] = True
    held = cold[dataset.item_rows]
    known = _occurs(dataset.user_rows[~held], dataset.n_users)[dataset.user_rows]
    dropped = {"cold_user": int((held & ~known).sum())}
    return Split("item_cold", dataset.select(~held), dataset.select(held & known), _counted(dropped))


def user_folds(dataset: Dataset, k: int, *, seed: int) -> list[Split]:
    """k-fold over users: every user's events are the test of exactly one fold and in train of all others."""
    if k < 2:
        raise InputError("k-fold takes at least 2 folds")
    fold = np.minimum((_hashed_share(dataset, seed) * k).astype(np.int64), k - 1)[dataset.user_rows]
    return [_split(f"user_fold_{i}", dataset, fold != i, fold == i) for i in range(k)]


def two_level(dataset: Dataset, *, quantile: float, valid_share: float, seed: int) -> tuple[Split, Split]:
    """Split by time for a first-stage model, then what is later by users for a second-stage one.

    The first split is `global_time`. The second parts the first's test: about `valid_share` of the users, chosen
    by a hash of id and seed, are its test, the others its train; no user is in both.
    """
    first = global_time(dataset, quantile=quantile)
    valid = (_hashed_share(dataset, seed) < valid_share)[first.test.user_rows]
    return first, _split("second_level", first.test, ~valid, valid)


def validation_split(dataset: Dataset, *, seed: int = 0) -> Split:
    """Choose a split to select models by, as like their use as the data allows.

    Comparable times: the last tenth of time, warm users and items; if fewer than MIN_WARM_USERS users are
    left, the last tenth of each user. Positions: the last tenth of each user. No order: a random tenth of
    each user. Pairs that train has are left out of test, as seen items are never recommended.
    """
    if dataset.time_kind == "timestamp" and len(dataset):
        split = global_time(dataset, quantile=0.9, warm=True, unseen=True)
        if len(np.unique(split.test.user_rows)) >= MIN_WARM_USERS:
            return split
    if dataset.time_kind is not None:
        return last_fraction(dataset, 0.1, unseen=True)
    return random_holdout(dataset, 0.1, seed=seed, unseen=True)


def _timestamps(dataset: Dataset) -> npt.NDArray[np.int64]:
    if dataset.times is None or dataset.time_kind != "timestamp":
        raise InputError(
            f"{dataset.name}: a time split needs timestamps; the data has {dataset.time_kind or 'no time'}"
        )
    return dataset.times


def _split(
    name: str,
    dataset: Dataset,
    train: Mask,
    test: Mask,
    *,
    warm: bool = False,
    unseen: bool = False,
    rest: str = "outside",
) -> Split:
    """Part the events by masks; then leave out of test what it must not hold, counting by reason."""
    users, items = dataset.user_rows, dataset.item_rows
    dropped = {rest: int((~train & ~test).sum())}
    if warm:
        known_user = _occurs(users[train], dataset.n_users)[users]
        known_item = _occurs(items[train], dataset.n_items)[items]
        dropped["cold_user"] = int((test & ~known_user).sum())
        dropped["cold_item"] = int((test & known_user & ~known_item).sum())
        test = test & known_user & known_item
    if unseen:
        pairs = users.astype(np.int64) * dataset.n_items + items
        seen = test.copy()
        seen[test] = np.isin(pairs[test], pairs[train])
        dropped["seen_pair"] = int(seen.sum())
        test = test & ~seen
    return Split(name, dataset.select(train), dataset.select(test), _counted(dropped))


def _counted(dropped: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if count}


def _occurs(rows: npt.NDArray[np.int32], n: int) -> Mask:
    """Mark (bool (n,)) the rows that occur."""
    there = np.zeros(n, np.bool_)
    there[rows] = True
    return there


def _share(counts: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.int64]:
    if not 0 < fraction < 1:
        raise InputError(f"a fraction of events is between 0 and 1, not {fraction}")
    return np.maximum((counts * fraction).astype(np.int64), 1)


def places_from_start(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Find each event's place in its user's time order: int64 (n,); 0 is the first."""
    from_end, counts = _places(dataset)
    return counts - 1 - from_end


def _places(dataset: Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find each event's place from the end of its user's time order, and its user's number of events.

    Both int64 (n,); 0 is the last; file order among equal times, as in `Dataset.in_time_order`.
    """
    keys = (dataset.user_rows,) if dataset.times is None else (dataset.times, dataset.user_rows)
    from_start, counts = _in_user(dataset, np.lexsort(keys))
    return counts - 1 - from_start, counts


def _shuffled_places(dataset: Dataset, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    lottery = np.random.default_rng(seed).random(len(dataset))
    return _in_user(dataset, np.lexsort((lottery, dataset.user_rows)))


def _in_user(
    dataset: Dataset, order: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Place (from 0) of each event among its user's, given an order that keeps users together; and counts."""
    per_user = np.bincount(dataset.user_rows, minlength=dataset.n_users)
    begins = np.cumsum(per_user) - per_user
    place = np.empty(len(dataset), np.int64)
    place[order] = np.arange(len(dataset)) - begins[dataset.user_rows[order]]
    return place, per_user[dataset.user_rows]


def _hashed_share(dataset: Dataset, seed: int) -> npt.NDArray[np.float64]:
    """float64 (n_users,) in [0, 1): a hash of seed and id."""
    ids = dataset.user_ids.take(np.arange(dataset.n_users))
    key = seed.to_bytes(8, "little", signed=True)
    hashes = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8, key=key).digest() for i in ids)
    return (np.frombuffer(hashes, "<u8") >> np.uint64(11)) / 2.0**53
