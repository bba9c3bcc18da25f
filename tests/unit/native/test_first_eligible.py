"""Walking down a list past what may not be shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.native import first_eligible

N_ROWS = 600
ITEMS = np.random.default_rng(4).permutation(N_ROWS).astype(np.int32)
SCORES = np.linspace(9, 1, N_ROWS, dtype=np.float32)
ENDS = st.tuples(st.integers(0, N_ROWS), st.integers(0, N_ROWS)).map(sorted)
ROWS = st.integers(0, N_ROWS - 1)
EXCLUDED = st.one_of(st.lists(ROWS, max_size=30), st.lists(ROWS, min_size=200, max_size=900), st.just([7, 7]))
MASKS = st.one_of(st.none(), st.frozensets(ROWS, max_size=N_ROWS))


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(ENDS, st.one_of(st.integers(0, 12), st.integers(0, N_ROWS + 5)), EXCLUDED, MASKS)
def test_it_finds_what_a_plain_loop_finds(
    ends: list[int], n: int, excluded: list[int], allowed: frozenset[int] | None
) -> None:
    begin, end = ends
    mask = None if allowed is None else np.isin(np.arange(N_ROWS), list(allowed))
    rows, scores = first_eligible(ITEMS, SCORES, begin, end, n, np.array(excluded, np.int32), mask)
    expected = [
        place
        for place in range(begin, end)
        if ITEMS[place] not in excluded and (allowed is None or int(ITEMS[place]) in allowed)
    ][:n]
    assert rows.tolist() == ITEMS[expected].tolist()
    assert scores.tolist() == SCORES[expected].tolist()
    assert [rows.dtype, scores.dtype] == [np.dtype(np.int32), np.dtype(np.float32)]


NOBODY = np.empty(0, np.int32)
GOOD: dict[str, Any] = {
    "items": ITEMS, "scores": SCORES, "begin": 0, "end": N_ROWS, "n": 5, "excluded": NOBODY, "mask": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("items", ITEMS.astype(np.int64), TypeError),
        ("items", ITEMS[:5], ValueError),
        ("scores", SCORES[::2], TypeError),
        ("begin", -1, ValueError),
        ("begin", N_ROWS + 1, ValueError),
        ("end", N_ROWS + 1, ValueError),
        ("end", 2**70, OverflowError),
        ("n", -1, ValueError),
        ("n", "five", TypeError),
        ("excluded", [1, 2], TypeError),
        ("excluded", ITEMS[::2], TypeError),
        ("excluded", np.array([7, -1], np.int32), IndexError),
        ("excluded", np.array([7, N_ROWS], np.int32), IndexError),
        ("excluded", np.array([2**31 - 1], np.int32), IndexError),
        ("mask", np.ones(N_ROWS, np.int8), TypeError),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        first_eligible(*{**GOOD, name: value}.values())


def test_a_mask_that_is_too_short_lets_nothing_beyond_it_through() -> None:
    rows, _ = first_eligible(ITEMS, SCORES, 0, N_ROWS, N_ROWS, NOBODY, np.ones(10, bool))
    assert sorted(rows.tolist()) == list(range(10))


def test_a_missing_argument_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        first_eligible(ITEMS, SCORES, 0, 5)  # type: ignore[call-arg]  # on purpose
