"""The competition's file: written whole, read back, refused at the first breach, with its row and column."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.submission import format_items, validate_submission, write_submission
from service.bundle.ids import IntIds, StrIds
from service.errors import DataError, InputError

TEN = list(range(1, 11))


def put(folder: Path, text: str) -> Path:
    path = folder / "submission.csv"
    path.write_bytes(text.encode())
    return path


def test_file_is_exactly_what_the_competition_reads(tmp_path: Path) -> None:
    write_submission(tmp_path / "s.csv", [7, 3], [TEN, TEN[::-1]], {"bundle": "b"})
    assert (tmp_path / "s.csv").read_text() == (
        'user_id,item_id\n7,"[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"\n3,"[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]"\n'
    )


def test_stamp_stands_beside_the_file_and_names_its_content(tmp_path: Path) -> None:
    stamp = write_submission(tmp_path / "s.csv", [7], [TEN], {"bundle": "abc", "model": "als", "k": 10})
    document = json.loads(stamp.read_text())
    assert stamp.name == "s.csv.json"
    assert (document["bundle"], document["model"], document["k"], document["rows"]) == ("abc", "als", 10, 1)
    assert document["sha256"] == hashlib.sha256((tmp_path / "s.csv").read_bytes()).hexdigest()
    assert document["created_at"].endswith("+00:00")
    assert document["sha256"] == validate_submission(tmp_path / "s.csv").sha256


@given(
    st.dictionaries(
        st.integers(0, 10**18 - 1),
        st.lists(st.integers(0, 10**18 - 1), min_size=4, max_size=4, unique=True),
        min_size=1,
        max_size=20,
    )
)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[int, list[int]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "s.csv"
    write_submission(path, list(rows), list(rows.values()), {})
    read = validate_submission(path, k=4, users=list(rows))
    assert {user: list(items) for user, items in read.items.items()} == rows


def test_text_ids_are_read_back(tmp_path: Path) -> None:
    items = ["item/001", 'a "quoted" one', "ünï"]
    write_submission(tmp_path / "s.csv", ["u,1", 'u"2'], [items, items[::-1]], {})
    catalogue = StrIds.of(items)
    read = validate_submission(tmp_path / "s.csv", user_kind="str", item_kind="str", k=3, catalogue=catalogue)
    assert dict(read.items) == {"u,1": tuple(items), 'u"2': tuple(items[::-1])}


def test_text_id_that_would_not_be_read_back_is_refused() -> None:
    with pytest.raises(InputError, match="'a, b' can't stand in a submission"):
        format_items(["x", "a, b"])


@pytest.mark.parametrize(
    ("rows", "row", "column", "reason"),
    [
        ('7,"[1, 2]"\n,"[1, 2]"\n', 2, "user_id", "empty"),
        ("7,\n", 1, "item_id", "empty"),
        ('7,"[1, 2]"\n8,"[1]"\n', 2, "item_id", "exactly 2 items, holds 1"),
        ('7,"[1, 2, 3]"\n', 1, "item_id", "exactly 2 items, holds 3"),
        ("7,[]\n", 1, "item_id", "exactly 2 items, holds 0"),
        ('7,"[1, 1]"\n', 1, "item_id", "twice"),
        ('7,"[1, 2]"\n7,"[3, 4]"\n', 2, "user_id", "came before"),
        ('7,"[1, two]"\n', 1, "item_id", "not an integer id"),
        ('7,"[1, 2.0]"\n', 1, "item_id", "not an integer id"),
        ('7,"[1,2]"\n', 1, "item_id", "holds 1"),
        ('7,"1, 2"\n', 1, "item_id", "must be a list"),
        ('x,"[1, 2]"\n', 1, "user_id", "not an integer id"),
        ("nan,[]\n", 1, "user_id", "not an integer id"),
        ('7,"[1, 99]"\n', 1, "item_id", "no such item"),
        ('7,"[1, 2]",3\n', 1, None, "3 fields"),
        ("7\n", 1, None, "1 fields"),
    ],
)
def test_breach_is_named_by_row_and_column(
    tmp_path: Path, rows: str, row: int, column: str | None, reason: str
) -> None:
    path = put(tmp_path, "user_id,item_id\n" + rows)
    with pytest.raises(DataError, match=reason) as caught:
        validate_submission(path, k=2, catalogue=IntIds(np.array([1, 2, 3, 4])))
    assert (Path(caught.value.file).name, caught.value.row, caught.value.column) == (
        "submission.csv",
        row,
        column,
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "columns must be"),
        ("user_id,items\n", "columns must be user_id,item_id, not user_id,items"),
        ("user_id,item_id\n", "holds no users"),
        ('user_id,item_id\n7,"[1, 2]', "not a CSV file"),
    ],
)
def test_broken_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        validate_submission(put(tmp_path, text), k=2)


def test_users_must_be_those_asked_for_in_their_order(tmp_path: Path) -> None:
    path = put(tmp_path, 'user_id,item_id\n7,"[1, 2]"\n8,"[1, 2]"\n')
    assert len(validate_submission(path, k=2, users=[7, 8]).items) == 2
    with pytest.raises(DataError, match="should be of user 8") as caught:
        validate_submission(path, k=2, users=[8, 7])
    assert (caught.value.row, caught.value.value) == (1, 7)
    with pytest.raises(DataError, match="holds 2 users, 3 were asked for"):
        validate_submission(path, k=2, users=[7, 8, 9])


def test_more_items_than_the_competition_takes_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, f'user_id,item_id\n7,"{format_items(range(11))}"\n')
    with pytest.raises(InputError, match="1 to 10 items a user, not 11"):
        validate_submission(path, k=11)
    with pytest.raises(InputError, match="no such file"):
        validate_submission(tmp_path / "gone.csv")
