from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.read import read_dataset
from service.errors import DataError, InputError


def hundred_k(folder: Path) -> Path:
    (folder / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    (folder / "u.user").write_text("196|49|M|writer|55105\n186|39|F|executive|00000\n")
    flags = "|".join("1" if i in (5, 8) else "0" for i in range(19))
    line = f"242|Misérables, Les (1995)|24-Jan-1997||http://x|{flags}\n"
    (folder / "u.item").write_bytes(line.encode("latin-1"))
    return folder


def test_the_100k_layout(tmp_path: Path) -> None:
    dataset = read_dataset(hundred_k(tmp_path))
    assert dataset.user_ids.take(dataset.user_rows) == [196, 186]
    assert dataset.item_ids.take(dataset.item_rows) == [242, 302]
    assert dataset.times is not None
    assert dataset.times.tolist() == [881250949000, 891717742000]
    assert dataset.ratings is not None
    assert dataset.ratings.tolist() == [3.0, 3.0]
    assert dataset.users is not None
    assert dataset.users.row(0, named=True) == {
        "age": 39,
        "gender": "F",
        "occupation": "executive",
        "zip": "00000",
    }
    assert dataset.items is not None
    assert dataset.items.row(0, named=True) == {
        "title": "Misérables, Les (1995)",
        "release_date": "24-Jan-1997",
        "genres": ["Comedy", "Drama"],
    }
    assert dataset.items["title"].to_list()[1] is None


def test_the_1m_layout(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n2::661::3::978302109\n")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    movies = (
        "661::James and the Giant Peach (1996)::Animation|Children's\n1193::Ménage: a play (1975)::Drama\n"
    )
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin-1"))
    dataset = read_dataset(tmp_path)
    assert dataset.item_ids.take(dataset.item_rows) == [1193, 661]
    assert dataset.items is not None
    assert dataset.items["genres"].to_list() == [["Animation", "Children's"], ["Drama"]]
    assert dataset.items["title"].to_list()[1] == "Ménage: a play (1975)"
    assert dataset.users is not None
    assert dataset.users["occupation"].to_list() == [10, 16]


def test_the_latest_layout(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n")
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n31,"A, B (1995)",Drama\n32,C,(no genres listed)\n'
    )
    dataset = read_dataset(tmp_path)
    assert dataset.item_ids.take(np.arange(2)) == [31, 32]
    assert dataset.items is not None
    assert dataset.items["genres"].to_list() == [["Drama"], None]
    assert dataset.ratings is not None
    assert dataset.ratings.tolist() == [2.5]
    assert len(read_dataset(tmp_path / "ratings.csv")) == 1


@pytest.mark.parametrize("line", ["1::2::good::978300760", "1::2::5", "1::2::5::97::8", "::2::5::978300760"])
def test_a_bad_line_of_ratings_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "ratings.dat").write_text(f"1::1193::5::978300760\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert caught.value.row == 2
    assert caught.value.file.endswith("ratings.dat")


def test_a_line_of_movies_with_a_field_missing_is_named(tmp_path: Path) -> None:
    folder = hundred_k(tmp_path)
    (folder / "u.item").write_text("242|Title\n")
    with pytest.raises(DataError, match=r"row 1.*expected 24 fields, found 2"):
        read_dataset(folder)


def test_columns_cannot_be_named_for_a_known_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--reader table"):
        read_dataset(hundred_k(tmp_path), reader="movielens", columns={"weight": "rating"})


def test_a_folder_without_ratings_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for u\.data"):
        read_dataset(tmp_path, reader="movielens")
