from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import DAY_MS, START_MS, feedback

from models.analysis.activity import Activity, active_users, activity, growth, retention
from models.events_table import SCHEMA, row_of

FIRST = START_MS // DAY_MS


def read(days_of: Mapping[int, list[int]]) -> Activity:
    """A log in which users are active on these days, counted from 0, twice on each."""
    records: list[Mapping[str, Any]] = [
        feedback(f"{user}-{day}-{n}", "view", user, START_MS + day * DAY_MS + n * (DAY_MS - 1))
        for user, days in days_of.items()
        for day in days
        for n in (0, 1)
    ]
    found = activity(pl.DataFrame([row_of(one) for one in records], schema=SCHEMA).lazy())
    assert found is not None
    return found


# a: daily at first; b: comes back after a pause; c: once; d: late.
SMALL = {1: [0, 1, 2, 3], 2: [0, 5], 3: [1], 4: [4, 5]}


def test_active_users_by_hand() -> None:
    found = read(SMALL)
    assert (found.first_day, found.length) == (FIRST, 6)
    assert active_users(found, 1).tolist() == [2, 2, 1, 1, 1, 2]
    # Three days up to each: {1,2}, {1,2,3}, {1,2,3}, {1,3}, {1,4}, {1,2,4}.
    assert active_users(found, 3).tolist() == [2, 3, 3, 2, 2, 3]


def test_growth_by_hand() -> None:
    periods = growth(read(SMALL), period_days=2, churned_after=2)
    # Periods of days 0-1, 2-3, 4-5: users {1,2,3}, {1}, {2,4}.
    assert [one.first_day - FIRST for one in periods] == [0, 2, 4]
    assert [one.new for one in periods] == [3, 0, 1]
    assert [one.current for one in periods] == [0, 1, 0]
    assert [one.returned for one in periods] == [0, 0, 1]
    assert [one.dormant for one in periods] == [0, 2, 1]  # 2 and 3; then 1
    assert [one.churned for one in periods] == [0, 0, 1]  # 3
    assert [one.churn_rate for one in periods] == [None, 2 / 3, 1.0]


def test_days_before_the_first_whole_period_make_nobody_new() -> None:
    periods = growth(read({1: [0, 1], 2: [1], 3: [2]}), period_days=2)
    assert len(periods) == 1
    assert (periods[0].first_day - FIRST, periods[0].new, periods[0].current) == (1, 2, 1)


def test_retention_by_hand() -> None:
    found = retention(read(SMALL), days=(1, 3, 5), brackets=((1, 2), (3, 5)))
    rates = {kind: {one.name: (one.users, one.kept) for one in rows} for kind, rows in found.items()}
    # First days 0, 0, 1, 4 of a log of days 0 to 5.
    assert rates["n_day"] == {"day 1": (4, 2), "day 3": (3, 1), "day 5": (2, 1)}
    assert rates["unbounded"] == {"day 1+": (4, 3), "day 3+": (3, 2), "day 5+": (2, 1)}
    assert rates["bracketed"] == {"days 1-2": (3, 1), "days 3-5": (2, 2)}


def test_a_log_without_users_has_no_activity() -> None:
    assert activity(pl.LazyFrame(schema=SCHEMA)) is None


LOGS = st.dictionaries(
    st.integers(0, 20), st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(days_of=LOGS, period=st.integers(1, 9), churned_after=st.integers(1, 5), window=st.integers(1, 30))
def test_counts_are_those_of_going_through_users_one_by_one(
    days_of: dict[int, list[int]], period: int, churned_after: int, window: int
) -> None:
    found = read(days_of)
    start, last = found.first_day - FIRST, found.last_day - FIRST
    assert active_users(found, window).tolist() == [
        sum(any(day - window < d <= day for d in days) for days in days_of.values())
        for day in range(start, last + 1)
    ]
    for one in growth(found, period_days=period, churned_after=churned_after):
        number = (last - (one.first_day - FIRST - 1)) // period - 1  # counted from the end
        states = {"new": 0, "current": 0, "returned": 0, "dormant": 0, "churned": 0, "lost": 0}
        for days in days_of.values():
            ago = {(last - day) // period - number for day in days}
            known = {n for n in ago if n >= 0}
            if not known:
                continue
            if 0 in known:
                states["new" if known == {0} else "current" if 1 in known else "returned"] += 1
            else:
                states["dormant" if min(known) < churned_after else "churned"] += 1
                states["lost"] += 1 in known
        assert {name: getattr(one, name) for name in states} == states


@pytest.mark.parametrize("days", [[0], [0, 39]])
def test_a_log_shorter_or_longer_than_a_period_has_its_last_period(days: list[int]) -> None:
    assert growth(read({1: days}))[-1].active == 1
