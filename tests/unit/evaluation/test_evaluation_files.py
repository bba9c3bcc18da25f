"""Files of users and held-out pairs: every format, and faults named by file, row, column and value."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from models.evaluation.files import read_pairs, read_users, write_whole
from service.errors import DataError, InputError


def put(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.txt", "7\n3\n7\n11\n"),
        ("lines-without-end.txt", "7\n3\n11"),
        ("blank-lines-at-the-end.txt", "7\n3\n11\n\n\n"),
        ("windows.txt", "7\r\n3\r\n11\r\n"),
        ("lines.txt.gz", "7\n3\n11\n"),
        ("table.csv", "user_id\n7\n3\n3\n11\n"),
        ("wide.csv", "item_id,user_id\n1,7\n2,3\n3,11\n"),
        ("wide.tsv", "item_id\tuser_id\n1\t7\n2\t3\n3\t11\n"),
        ("wide.csv.gz", "user_id,age\n7,\n3,x\n11,\n"),
    ],
)
def test_users_come_once_and_in_the_file_s_order(tmp_path: Path, name: str, text: str) -> None:
    assert read_users(put(tmp_path / name, text), "int64") == [7, 3, 11]


def test_users_of_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [7, 3, 7]}).write_parquet(tmp_path / "u.parquet")
    assert read_users(tmp_path / "u.parquet", "int64") == [7, 3]
    assert read_users(tmp_path / "u.parquet", "str") == ["7", "3"]


def test_text_ids_stay_text(tmp_path: Path) -> None:
    assert read_users(put(tmp_path / "u.txt", "b\n007\n"), "str") == ["b", "007"]


@pytest.mark.parametrize("value", ["x7", "1.0", "+1", "1_0", "-1", "٣", "007", "1e3", "1000000000000000000"])
def test_user_that_is_no_integer_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match="not an integer id") as caught:
        read_users(put(tmp_path / "u.csv", f"user_id\n5\n{value}\n"), "int64")
    error = caught.value
    assert (Path(error.file).name, error.row, error.column, error.value) == ("u.csv", 2, "user_id", value)


def test_line_that_is_no_integer_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_users(put(tmp_path / "u.txt", "5\n6\nsix\n"), "int64")
    assert (caught.value.row, caught.value.value) == (3, "six")


def test_blank_line_inside_is_a_missing_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing id") as caught:
        read_users(put(tmp_path / "u.txt", "5\n\n6\n"), "int64")
    assert caught.value.row == 2


def test_table_without_the_column_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'user_id'; the columns are uid, item_id"):
        read_users(put(tmp_path / "u.csv", "uid,item_id\n1,2\n"), "int64")
    with pytest.raises(DataError, match="no column 'item_id'; the columns are user_id, item"):
        read_pairs(put(tmp_path / "p.csv", "user_id,item\n1,2\n"), "int64", "int64")


@pytest.mark.parametrize(("text", "reason"), [("", "empty"), ("user_id\n", "no user ids")])
def test_file_without_users_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_users(put(tmp_path / "u.csv", text), "int64")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_users(tmp_path / "gone.csv", "int64")
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_pairs(tmp_path / "gone.csv", "int64", "int64")


def test_pairs_keep_rows_and_ignore_other_columns(tmp_path: Path) -> None:
    users, items = read_pairs(
        put(tmp_path / "t.csv.gz", "rating,user_id,item_id\n5,1,10\n,1,10\n3,2,20\n"), "int64", "str"
    )
    assert (users.tolist(), items.tolist()) == ([1, 1, 2], ["10", "10", "20"])


def test_pairs_of_parquet_and_tsv(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["a"], "item_id": [4]}).write_parquet(tmp_path / "t.parquet")
    assert [ids.tolist() for ids in read_pairs(tmp_path / "t.parquet", "str", "int64")] == [["a"], [4]]
    table = put(tmp_path / "t.tsv", "user_id\titem_id\na\t4\n")
    assert [ids.tolist() for ids in read_pairs(table, "str", "int64")] == [["a"], [4]]


def test_fault_in_a_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_pairs(put(tmp_path / "t.csv", "user_id,item_id\n1,10\n2,ten\n"), "int64", "int64")
    assert (caught.value.row, caught.value.column, caught.value.value) == (2, "item_id", "ten")


def test_fractional_ids_of_parquet_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1.0], "item_id": [4]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="Float64"):
        read_pairs(tmp_path / "t.parquet", "int64", "int64")


def test_file_is_written_whole_and_gzipped_by_its_name(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.csv", b"x\n")
    write_whole(tmp_path / "a.csv.gz", b"x\n")
    assert (
        (tmp_path / "a.csv").read_bytes() == gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"x\n"
    )
    with pytest.raises(InputError, match="can't be written"):
        write_whole(tmp_path / "no-folder" / "a.csv", b"x\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.csv.gz"]
