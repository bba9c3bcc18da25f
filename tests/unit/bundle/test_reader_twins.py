"""A CSR row that lists an item twice is found, wherever the blocks it is looked for in begin and end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle import reader

WIDTH = 6
rows_of_items = st.lists(st.lists(st.integers(0, WIDTH - 1), max_size=WIDTH), max_size=12)


@given(rows=rows_of_items, block=st.integers(1, 9))
def test_the_first_row_with_a_twin_is_found_whatever_the_block(rows: list[list[int]], block: int) -> None:
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    items = np.array([item for row in rows for item in row], np.int32)
    expected = next((number for number, row in enumerate(rows) if len(set(row)) < len(row)), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BLOCK_ENTRIES", block)
        assert reader._first_row_with_a_twin(indptr, items, WIDTH) == expected
