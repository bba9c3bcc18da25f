from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.ids import MAX_ID_BYTES, parse_budget_s, parse_k, parse_user_id
from service.errors import InvalidRequest, UserNotFound

MAX = 10**9


@given(st.integers(0, MAX))
def test_an_integer_id_is_read_as_itself(user_id: int) -> None:
    assert parse_user_id(b"%d" % user_id, "int64", MAX) == user_id


@given(st.integers(MAX + 1, 10**18 - 1))
def test_an_id_above_the_largest_is_no_user(user_id: int) -> None:
    with pytest.raises(UserNotFound):
        parse_user_id(b"%d" % user_id, "int64", MAX)


@pytest.mark.parametrize(
    "segment",
    [
        b"", b"-1", b"+1", b"%2B1", b"1_0", b"1.0", b"1e3", b" 1", b"1%20", b"%0a1", b"1%0d%0a", b"0x1", b"1%00",
        str(2**63).encode(), b"9" * 5000, "١٢٣".encode(), quote("١٢٣").encode(), b"%EF%BC%91", b"%ff", b"%", b"%zz",
        b"%C2%B2", b"NaN", b"None",
    ],
)  # fmt: skip
def test_nothing_else_is_an_integer_id(segment: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_user_id(segment, "int64", MAX)
    assert refused.value.location == ("path", "user_id")
    assert len(str(refused.value)) < 200


@given(st.binary(max_size=40))
def test_bytes_that_are_read_as_an_integer_are_its_digits(segment: bytes) -> None:
    try:
        user_id = parse_user_id(segment, "int64", 10**18)
    except InvalidRequest:
        return
    assert isinstance(user_id, int)
    assert 0 <= user_id < 10**18


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60))
def test_a_text_id_comes_back_from_its_escapes(user_id: str) -> None:
    assert parse_user_id(quote(user_id, safe="").encode(), "str", MAX) == user_id


@pytest.mark.parametrize(
    "segment",
    [b"", b"%ff", b"a%00", b"%0d%0aX: y", b"%7f", b"%C2%85", b"%ED%A0%80", b"a" * (MAX_ID_BYTES + 1)],
)
def test_a_text_id_is_short_clean_utf8(segment: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_user_id(segment, "str", MAX)


def test_the_longest_text_id_counts_bytes_after_unescaping() -> None:
    assert parse_user_id(b"%D1%8F" * (MAX_ID_BYTES // 2), "str", MAX) == "я" * (MAX_ID_BYTES // 2)


@pytest.mark.parametrize(
    ("query", "k"),
    [
        (b"k=1", 1),
        (b"k=200", 200),
        (b"x=1&k=7&y", 7),
        (b"x=k", 10),
        (b"%6B=%35", 5),
        (b"kk=3", 10),
        (b"&", 10),
    ],
)
def test_k_is_read_among_other_parameters(query: bytes, k: int) -> None:
    assert parse_k(query, 10, 200) == k


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (b"k=", "int_parsing"), (b"k", "int_parsing"), (b"k=ten", "int_parsing"), (b"k=1.0", "int_parsing"),
        (b"k=1_0", "int_parsing"), (b"k=+5", "int_parsing"), (b"k=%2B5", "int_parsing"), (b"k=5&k=5", "int_parsing"),
        (b"k=" + b"9" * 5000, "int_parsing"), (b"k=\xd9\xa1", "int_parsing"), (b"k=0", "greater_than_equal"),
        (b"k=-1", "greater_than_equal"), (b"k=201", "less_than_equal"), (b"k=1000000000", "less_than_equal"),
    ],
)  # fmt: skip
def test_a_k_that_is_none_is_refused_by_kind(query: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_k(query, 10, 200)
    assert (refused.value.location, refused.value.kind) == (("query", "k"), kind)


def test_a_budget_is_lowered_and_never_raised() -> None:
    assert parse_budget_s(b"5", 0.05) == pytest.approx(0.005)
    assert parse_budget_s(b"0.5", 0.05) == pytest.approx(0.0005)
    assert parse_budget_s(b"999999999", 0.05) == 0.05


@pytest.mark.parametrize("value", [b"", b"-1", b"1e3", b"inf", b"nan", b"5ms", b"5 ", b"\xff", b"1" * 400])
def test_a_malformed_budget_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_budget_s(value, 0.05)
    assert refused.value.location == ("header", "x-reco-budget-ms")
