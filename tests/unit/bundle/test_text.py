from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.text import TextColumn, pack_text

LINES = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=30)


@given(LINES)
def test_packed_text_reads_back(lines: list[str]) -> None:
    column = TextColumn(*pack_text(lines))
    assert list(column) == lines
    assert len(column) == len(lines)
    assert column[::-1] == lines[::-1]
    for row in range(-len(lines), len(lines)):
        assert column[row] == lines[row]


@given(LINES)
def test_a_row_outside_is_an_index_error(lines: list[str]) -> None:
    column = TextColumn(*pack_text(lines))
    for row in (len(lines), -len(lines) - 1):
        with pytest.raises(IndexError):
            column[row]


@pytest.mark.parametrize("offsets", [[], [1], [0], [0, 3], [0, 2, 1, 2], [0, -1, 2]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        TextColumn(np.frombuffer(b"ab", np.uint8), np.array(offsets, np.int64))


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        TextColumn(np.array([0xFF], np.uint8), np.array([0, 1], np.int64))
