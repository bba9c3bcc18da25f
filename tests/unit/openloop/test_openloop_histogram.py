"""The histogram against sorted values."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from loadtest.openloop.histogram import Histogram

SECONDS = st.lists(st.floats(0, 1000), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(SECONDS, st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_sorted_value_to_one_in_128(values: list[float], share: float) -> None:
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    found = filled(values).quantile(share)
    assert int(exact * 1e6) / 1e6 <= found <= exact * (1 + 1 / 128) + 1e-6


@given(SECONDS, SECONDS)
def test_two_added_are_one_of_both(first: list[float], second: list[float]) -> None:
    both, added = filled(first + second), filled(first)
    added.add(filled(second))
    assert list(both.lines()) == list(added.lines())
    assert both.total == len(first) + len(second)


def test_nothing_recorded_is_nothing_and_the_far_past_is_now() -> None:
    assert Histogram().quantile(0.99) == 0.0
    assert filled([-1.0]).greatest == 0
    assert filled([0.001, 0.002, 0.5]).above(0.1) == 1


def test_the_distribution_ends_with_the_greatest_and_the_count() -> None:
    lines = list(filled([n / 1000 for n in range(1, 101)]).lines())
    assert lines[-1] == "#[Max = 100.000, Total count = 100]"
    assert lines[-2].split() == ["100.000", "1.000000000000", "100"]
    values = [float(line.split()[0]) for line in lines[2:-1]]
    assert values == sorted(values)
