"""A list that names an entry twice is found, in rows short enough for pairs and in longer ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.native import first_twin

WIDTH = 300
entries = st.integers(0, WIDTH - 1)
rows_of_entries = st.lists(
    st.lists(entries, max_size=20) | st.lists(entries, min_size=45, max_size=120, unique=True)
    | st.lists(entries, min_size=45, max_size=60),
    max_size=8,
)  # fmt: skip


def as_csr(rows: list[list[int]]) -> tuple[Any, Any]:
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    return indptr, np.array([entry for row in rows for entry in row], np.int32)


@settings(max_examples=300, deadline=None)
@given(rows=rows_of_entries)
def test_the_first_row_with_a_twin_is_found(rows: list[list[int]]) -> None:
    expected = next((number for number, row in enumerate(rows) if len(set(row)) < len(row)), None)
    assert first_twin(*as_csr(rows), WIDTH) == expected


@pytest.mark.parametrize("length", [2, 17, 48, 49, 64, 65, 200])
def test_a_twin_is_found_wherever_its_two_places_are(length: int) -> None:
    row = np.random.default_rng(length).permutation(WIDTH)[:length].tolist()
    for one in range(length):
        for other in {0, one // 2, length - 1} - {one}:
            twin = row.copy()
            twin[one] = twin[other]
            assert first_twin(*as_csr([row, twin, twin]), WIDTH) == 1


@pytest.mark.parametrize(
    ("indptr", "items", "width"),
    [
        ([0, 2, 1, 3], [0, 1, 2], 3),
        ([0, 2], [0, 1, 2], 3),
        ([0, 4], [0, 1, 2], 3),
        ([1, 3], [0, 1, 2], 3),
        ([0, 3], [0, 1, 3], 3),
        ([0, 3], [0, 1, -1], 3),
        ([], [0], 3),
        ([0, 1], [0], -1),
        ([0, 1], [0], 0),
        ([-8, 3], [0, 1, 2], 3),
    ],
)
def test_what_is_no_list_of_rows_is_refused(indptr: list[int], items: list[int], width: int) -> None:
    with pytest.raises(ValueError, match="first_twin"):
        first_twin(np.array(indptr, np.int64), np.array(items, np.int32), width)


@pytest.mark.parametrize("places", [0, 1])
def test_other_types_are_refused(places: int) -> None:
    arguments: list[Any] = [np.array([0, 1]), np.zeros(1, np.int32)]
    arguments[places] = arguments[places].astype(np.float32)
    with pytest.raises(TypeError):
        first_twin(arguments[0], arguments[1], 3)
