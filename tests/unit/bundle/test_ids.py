from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.ids import UNKNOWN, Ids, IntIds, StrIds

INTEGERS = st.sets(st.integers(-(2**63), 2**63 - 1), max_size=60)
DENSE = st.builds(
    lambda first, n: set(range(first, first + n)), st.integers(-(10**9), 10**9), st.integers(0, 60)
)
TEXTS = st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), max_size=40)


def int_ids(values: set[int]) -> IntIds:
    return IntIds(np.array(sorted(values), np.int64))


def check_round_trip(ids: Ids, values: set[Any]) -> None:
    rows = np.arange(len(ids))
    taken = ids.take(rows)
    assert set(taken) == values
    assert len(taken) == len(values)
    assert [ids.row_of(one) for one in taken] == rows.tolist()
    assert ids.rows_of(taken).tolist() == rows.tolist()
    assert ids.take(rows[::-1]) == taken[::-1]


@given(st.one_of(INTEGERS, DENSE))
def test_row_and_take_are_inverse_for_integers(values: set[int]) -> None:
    check_round_trip(int_ids(values), values)


@given(TEXTS)
def test_row_and_take_are_inverse_for_text(values: set[str]) -> None:
    check_round_trip(StrIds.of(values), values)


@given(st.one_of(INTEGERS, DENSE), st.integers(-(2**70), 2**70))
def test_an_integer_outside_the_set_is_unknown(values: set[int], asked: int) -> None:
    assert (int_ids(values).row_of(asked) == UNKNOWN) == (asked not in values)


@given(TEXTS, st.text(max_size=8))
def test_a_text_outside_the_set_is_unknown(values: set[str], asked: str) -> None:
    assert (StrIds.of(values).row_of(asked) == UNKNOWN) == (asked not in values)


@given(TEXTS)
def test_text_stands_in_the_order_of_its_utf8_bytes_whatever_order_it_came_in(values: set[str]) -> None:
    taken = StrIds.of(sorted(values, reverse=True)).take(np.arange(len(values)))
    assert [one.encode() for one in taken] == sorted(one.encode() for one in values)


@given(TEXTS)
def test_a_prefix_or_a_longer_text_is_not_mistaken_for_an_id(values: set[str]) -> None:
    ids = StrIds.of(values)
    for one in values:
        for near in (one[:-1], one + "\0", one + one):
            assert (ids.row_of(near) == UNKNOWN) == (near not in values)


@pytest.mark.parametrize("asked", ["10", 10.0, True, None, np.int64(10), b"10", (10,)])
def test_an_id_of_another_kind_is_never_an_alias_of_an_integer(asked: object) -> None:
    assert IntIds(np.array([1, 10], np.int64)).row_of(asked) == UNKNOWN


@pytest.mark.parametrize("asked", [10, b"10", None, "\uff11\uff10", "10\n", "\ud800"])
def test_an_id_of_another_kind_is_never_an_alias_of_text(asked: object) -> None:
    assert StrIds.of(["10"]).row_of(asked) == UNKNOWN


@pytest.mark.parametrize("values", [[2, 1], [1, 1], [0, 1, 1, 2]])
def test_integers_must_be_unique_and_ascending(values: list[int]) -> None:
    with pytest.raises(ValueError, match="unique and ascending"):
        IntIds(np.array(values, np.int64))


@pytest.mark.parametrize(
    ("blob", "offsets", "why"),
    [
        (b"ba", [0, 1, 2], "unique and ascending"),
        (b"aa", [0, 1, 2], "unique and ascending"),
        (b"ab", [0, 0, 2], "no id may be empty"),
        (b"ab", [0, 1], "blob's length"),
        (b"ab", [1, 2], "must rise from 0"),
        (b"ab", [0, 2, 1], "must rise"),
        (b"ab", [], "must rise"),
        (b"\xc3\x28", [0, 2], "not UTF-8"),
        ("é".encode(), [0, 1, 2], "not UTF-8"),
    ],
)
def test_stored_text_that_is_no_set_of_ids_is_refused(blob: bytes, offsets: list[int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        StrIds(np.frombuffer(blob, np.uint8), np.array(offsets, np.int64))


@given(TEXTS)
def test_stored_arrays_bring_the_same_ids_back(values: set[str]) -> None:
    stored = StrIds.of(values).arrays()
    again = StrIds(stored["blob"], stored["offsets"])
    assert again.take(np.arange(len(again))) == StrIds.of(values).take(np.arange(len(values)))
