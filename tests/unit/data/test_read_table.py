from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.dataset import Dataset
from models.data.read import read_dataset
from service.bundle.ids import IntIds, StrIds
from service.errors import DataError, InputError

HEADER = "user_id,item_id,weight,timestamp\n"


def write(folder: Path, text: str, name: str = "interactions.csv") -> Path:
    (folder / name).write_text(text)
    return folder


def events(dataset: Dataset) -> list[tuple[object, object]]:
    users, items = dataset.user_ids.take(dataset.user_rows), dataset.item_ids.take(dataset.item_rows)
    return list(zip(users, items, strict=True))


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "tsv.gz", "parquet"])
def test_every_format_gives_the_same_data(tmp_path: Path, ending: str) -> None:
    table = pl.DataFrame({"user_id": [7, 3, 7], "item_id": [10, 11, 12], "timestamp": [100, 200, 300]})
    file = tmp_path / f"interactions.{ending}"
    if ending == "parquet":
        table.write_parquet(file)
    else:
        text = table.write_csv(separator="\t" if "tsv" in ending else ",").encode()
        file.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    dataset = read_dataset(tmp_path)
    assert events(dataset) == [(7, 10), (3, 11), (7, 12)]
    assert dataset.times is not None
    assert dataset.times.tolist() == [100_000, 200_000, 300_000]
    assert dataset.time_kind == "timestamp"
    assert dataset.weights.tolist() == [1.0, 1.0, 1.0]
    assert (dataset.ratings, dict(dataset.dropped)) == (None, {})


def test_a_single_file_may_have_any_name_and_any_columns(tmp_path: Path) -> None:
    file = tmp_path / "export of monday"
    file.write_text("uid;x,sku,when\nann,a,2021-03-01\nbob,b,2021-03-02T03:04:05Z\n")
    dataset = read_dataset(file, columns={"user_id": "uid;x", "item_id": "sku", "timestamp": "when"})
    assert events(dataset) == [("ann", "a"), ("bob", "b")]
    assert dataset.times is not None
    assert dataset.times.tolist() == [1614556800000, 1614654245000]


def test_users_and_items_choose_their_kind_of_id_separately(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, "user_id,item_id\n10,a\n9,B\n"))
    assert isinstance(dataset.user_ids, IntIds)
    assert isinstance(dataset.item_ids, StrIds)
    assert dataset.user_ids.take(np.arange(2)) == [9, 10]
    assert dataset.item_ids.take(np.arange(2)) == ["B", "a"]


@pytest.mark.parametrize("odd", ["007", "-1", "+1", "1.0", "1_0", "1000000000000000000", "x", " 1", "\u0661"])
def test_one_id_that_is_no_canonical_integer_makes_all_of_them_text(tmp_path: Path, odd: str) -> None:
    dataset = read_dataset(write(tmp_path, f"user_id,item_id\n1,1\n{odd},2\n999999999999999999,3\n"))
    assert {user for user, _ in events(dataset)} == {"1", odd, "999999999999999999"}
    assert isinstance(dataset.item_ids, IntIds)


def test_ids_known_from_feature_tables_alone_are_ids_too(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,5\n2,6\n")
    write(tmp_path, "user_id,age\n3,30\n1,20\n", "users.csv")
    write(tmp_path, "item_id,genres,year,zip\n6,a|b,1999,01002\n9,c,2001,2\n", "items.csv")
    dataset = read_dataset(tmp_path)
    assert dataset.user_ids.take(np.arange(3)) == [1, 2, 3]
    assert dataset.users is not None
    assert dataset.users["age"].to_list() == [20, None, 30]
    assert dataset.item_ids.take(np.arange(3)) == [5, 6, 9]
    assert dataset.items is not None
    assert dataset.items["genres"].to_list() == [None, ["a", "b"], ["c"]]
    assert dataset.items["year"].to_list() == [None, 1999, 2001]
    assert dataset.items["zip"].to_list() == [None, "01002", "2"]


def test_a_text_id_in_a_feature_table_makes_all_ids_text(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,5\n")
    write(tmp_path, "user_id,age\nguest,30\n", "users.csv")
    assert events(read_dataset(tmp_path)) == [("1", 5)]


def test_further_tables_of_items_are_joined_and_never_override(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,5\n")
    write(tmp_path, "item_id,title\n5,Five\n6,Six\n", "items.csv")
    write(tmp_path, "item_id,title,tags\n7,Seven,x|y\n5,other,z\n", "items_tags.csv")
    items = read_dataset(tmp_path).items
    assert items is not None
    assert items["title"].to_list() == ["Five", "Six", None]
    assert items["tags"].to_list() == [["z"], None, ["x", "y"]]


def test_titles_are_never_split_or_turned_into_numbers(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,5\n1,6\n")
    write(tmp_path, 'item_id,title,genres\n5,1984,"драмы, комедии"\n6,"a|b, c",драмы\n', "items.csv")
    items = read_dataset(tmp_path).items
    assert items is not None
    assert items["title"].to_list() == ["1984", "a|b, c"]
    assert items["genres"].to_list() == [["драмы", "комедии"], ["драмы"]]


@pytest.mark.parametrize(
    ("text", "row", "column", "value"),
    [
        (HEADER + "1,2,1,100\n,2,1,100\n", 2, "user_id", None),
        (HEADER + "1,2,1,100\n1,,1,100\n", 2, "item_id", None),
        (HEADER + "1,2,1,100\n1,3,-0.5,100\n", 2, "weight", "-0.5"),
        (HEADER + "1,2,1,100\n1,3,nan,100\n", 2, "weight", "nan"),
        (HEADER + "1,2,1,100\n1,3,inf,100\n", 2, "weight", "inf"),
        (HEADER + "1,2,1,100\n1,3,much,100\n", 2, "weight", "much"),
        (HEADER + "1,2,1,100\n1,3,1e39,100\n", 2, "weight", "1e39"),
        (HEADER + "1,2,1,100\n1,3,1,yesterday\n", 2, "timestamp", "yesterday"),
        (HEADER + "1,2,1,2021-01-01\n1,3,1,2021-02-30\n", 2, "timestamp", "2021-02-30"),
        (HEADER + "1,2,1,100\n1,3,1\n", 2, "timestamp", None),
        (HEADER + "1,2,1,1600000000\n1,3,1,1600000000000\n", 1, "timestamp", 1600000000),
        ("user_id,item_id,pos\n1,2,0\n1,3,1.5\n", 2, "pos", "1.5"),
        ("user_id,item_id,last_watch_dt\n1,2,20210313\n", 1, "last_watch_dt", "20210313"),
    ],
)
def test_a_bad_value_is_named_with_file_row_column_and_value(
    tmp_path: Path, text: str, row: int, column: str, value: object
) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(write(tmp_path, text))
    assert (caught.value.row, caught.value.column) == (row, column)
    assert caught.value.file == str(tmp_path / "interactions.csv")
    assert caught.value.value == ("nothing" if value is None else value)


def test_the_row_of_a_fault_counts_blank_lines_and_all_runs_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.events.RUN_ROWS", 4)
    lines = [f"{i},{i},1,{1000 + i}" for i in range(30)]
    lines[3] = ""
    lines[20] = "20,20,bad,1020"
    with pytest.raises(DataError) as caught:
        read_dataset(write(tmp_path, HEADER + "\n".join(lines) + "\n"))
    assert caught.value.row == 21


def test_a_missing_column_lists_the_columns_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'item_id'.*the columns are user_id, thing"):
        read_dataset(write(tmp_path, "user_id,thing\n1,2\n"))
    with pytest.raises(DataError, match="no column 'nope' for weight"):
        read_dataset(write(tmp_path, "user_id,item_id\n1,2\n"), columns={"weight": "nope"})


def test_a_row_with_too_many_fields_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(write(tmp_path, "user_id,item_id\n1,2\n3,4,5\n"))
    assert caught.value.row == 2


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8bnot gzip", b"PAR1 not parquet", b"user_id,item_id\n1,\xff\n"]
)
def test_an_unreadable_file_is_a_data_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "interactions.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"interactions\.csv"):
        read_dataset(tmp_path)


def test_nothing_to_read_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)looked for.*kion.*table.*movielens.*botify"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        read_dataset(tmp_path / "absent")
    with pytest.raises(InputError, match="no such reader"):
        read_dataset(tmp_path, reader="netflix")
    with pytest.raises(InputError, match="known are user_id, item_id"):
        read_dataset(tmp_path, columns={"user": "uid"})


@pytest.mark.parametrize("prefix", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(
    tmp_path: Path, prefix: str, ending: str
) -> None:
    lines = [prefix + "user_id,item_id,note,timestamp", '1,a,"two\nlines",100', "2,b,x,200", ""]
    (tmp_path / "interactions.csv").write_bytes(ending.join(lines).encode())
    dataset = read_dataset(tmp_path)
    assert events(dataset) == [(1, "a"), (2, "b")]
    assert dataset.times is not None
    assert dataset.times.tolist() == [100_000, 200_000]


def test_interactions_win_over_other_layouts_in_the_same_folder(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,2\n")
    write(tmp_path, '{"track": 9}\n', "tracks.json")
    write(tmp_path, "5\t6\t3\t100\n", "u.data")
    assert events(read_dataset(tmp_path)) == [(1, 2)]


def test_two_files_of_interactions_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,2\n")
    write(tmp_path, "user_id\titem_id\n1\t2\n", "interactions.tsv")
    with pytest.raises(DataError, match="keep one"):
        read_dataset(tmp_path)


def test_a_repeated_id_in_a_feature_table_is_named(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,2\n")
    write(tmp_path, "user_id,age\n1,2\n\n1,5\n", "users.csv")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert (caught.value.row, caught.value.column, caught.value.value) == (3, "user_id", "1")


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    rows = ["1,2,1,100", "1,2,1,100", "1,2,1,200", "1,3,0,100", "", "1,2,1,100"]
    dataset = read_dataset(write(tmp_path, HEADER + "\n".join(rows) + "\n"))
    assert dict(dataset.dropped) == {"blank_row": 1, "zero_weight": 1, "duplicate_row": 2}
    assert events(dataset) == [(1, 2), (1, 2)]
    assert dataset.times is not None
    assert dataset.times.tolist() == [100_000, 200_000]


def test_events_that_differ_in_rating_alone_are_kept(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, "user_id,item_id,rating\n1,2,3\n1,2,4\n1,2,3\n"))
    assert dataset.ratings is not None
    assert dataset.ratings.tolist() == [3.0, 4.0]
    assert dataset.weights.tolist() == [1.0, 1.0]
    assert dataset.select(np.array([1])).ratings.tolist() == [4.0]  # type: ignore[union-attr]


def test_of_several_time_columns_the_most_exact_is_taken(tmp_path: Path) -> None:
    text = "user_id,item_id,pos,last_watch_dt,timestamp\n1,2,0,2021-01-01,1600000000\n"
    dataset = read_dataset(write(tmp_path, text))
    assert dataset.times is not None
    assert dataset.times.tolist() == [1_600_000_000_000]
    dataset = read_dataset(tmp_path, columns={"pos": "pos"})
    assert dataset.time_kind == "position"


@pytest.mark.parametrize("scale", [1, 1000, 10**6, 10**9])
def test_the_unit_of_unix_times_is_told_by_their_size(tmp_path: Path, scale: int) -> None:
    rows = "".join(f"1,{i},{(1_600_000_000 + i) * scale}\n" for i in range(3))
    dataset = read_dataset(write(tmp_path, "user_id,item_id,timestamp\n" + rows))
    assert dataset.times is not None
    assert dataset.times.tolist() == [1_600_000_000_000 + 1000 * i for i in range(3)]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2021-03-13", 1615593600000),
        ("2021-03-13 10:20", 1615630800000),
        ("2021-03-13T10:20:30", 1615630830000),
        ("2021-03-13 10:20:30.250", 1615630830250),
        ("2021-03-13T10:20:30Z", 1615630830000),
        ("2021-03-13T10:20:30+03:00", 1615620030000),
        ("2021-03-13T10:20:30.5-0200", 1615638030500),
    ],
)
def test_iso_times_are_read_as_utc_or_by_their_offset(tmp_path: Path, text: str, milliseconds: int) -> None:
    dataset = read_dataset(write(tmp_path, f"user_id,item_id,timestamp\n1,2,{text}\n"))
    assert dataset.times is not None
    assert dataset.times.tolist() == [milliseconds]


def test_typed_parquet_times_and_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user_id": pl.Series(["b", "a"], dtype=pl.Categorical), "item_id": pl.Series([1, 2], dtype=pl.UInt8)}
    ).with_columns(timestamp=pl.Series(["2021-03-13", "2021-03-14"]).str.to_datetime("%Y-%m-%d"))
    table.write_parquet(tmp_path / "interactions.parquet")
    dataset = read_dataset(tmp_path)
    assert events(dataset) == [("b", 1), ("a", 2)]
    assert dataset.times is not None
    assert dataset.times.tolist() == [1615593600000, 1615680000000]


def test_float_ids_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1.0], "item_id": [2]}).write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match="Float64"):
        read_dataset(tmp_path)


def test_the_fingerprint_follows_the_bytes_of_every_file(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item_id\n1,2\n")
    write(tmp_path, "user_id,age\n1,2\n", "users.csv")
    first = read_dataset(tmp_path).fingerprint
    assert read_dataset(tmp_path).fingerprint == first
    write(tmp_path, "user_id,age\n1,3\n", "users.csv")
    assert read_dataset(tmp_path).fingerprint != first
    assert len(first) == 64


def test_a_header_alone_is_an_empty_data_set(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, HEADER))
    assert (len(dataset), dataset.n_users, dataset.n_items) == (0, 0, 0)


_ID = st.one_of(
    st.integers(0, 10**18 - 1).map(str),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=6),
)


@given(pairs=st.lists(st.tuples(_ID, _ID), min_size=1, max_size=30, unique=True))
def test_ids_come_back_exactly_as_written(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    table = pl.DataFrame(pairs, schema={"user_id": pl.Utf8, "item_id": pl.Utf8}, orient="row")
    table.write_csv(folder / "interactions.csv", quote_style="always")
    dataset = read_dataset(folder)
    assert [(str(user), str(item)) for user, item in events(dataset)] == pairs
    assert [dataset.user_ids.row_of(user) for user, _ in events(dataset)] == dataset.user_rows.tolist()
