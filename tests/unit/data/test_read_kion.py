# ruff: noqa: E501, RUF001
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.data.kion import clean
from models.data.read import read_dataset
from service.errors import DataError

INTERACTIONS = """user_id,item_id,last_watch_dt,total_dur,watched_pct
176549,9506,2021-05-11,4250,72.0
699317,1659,2021-05-29,8317,100.0
656683,7107,2021-05-09,10,
"""
USERS = """user_id,age,income,sex,kids_flg
176549,age_25_34,income_60_90,М,1
699317,,,Ж,0
"""
ITEMS = """item_id,content_type,title,title_orig,release_year,genres,countries,for_kids,age_rating,studios,directors,actors,description,keywords
9506,film,Поговори с ней,Hable con ella,2002.0,"Мелодрамы, драмы",Испания,,16.0,,Педро Альмодовар,"Адольфо Фернандес, Ана",Текст,"поговори, Испания"
1659,series,Голые перцы,,,комедии,,1.0,,,,,Ещё,
"""


def kion(folder: Path) -> Path:
    (folder / "interactions.csv").write_text(INTERACTIONS)
    (folder / "users.csv").write_text(USERS)
    (folder / "items.csv").write_text(ITEMS)
    return folder


def test_interactions_keep_what_was_measured_and_weigh_one(tmp_path: Path) -> None:
    dataset = read_dataset(kion(tmp_path))
    assert dataset.time_kind == "timestamp"
    assert dataset.times is not None
    assert dataset.times.tolist() == [1620691200000, 1622246400000, 1620518400000]
    assert dataset.signals["total_dur"].tolist() == [4250.0, 8317.0, 10.0]
    assert dataset.signals["watched_pct"].tolist()[:2] == [72.0, 100.0]
    assert np.isnan(dataset.signals["watched_pct"][2])
    assert dataset.weights.tolist() == [1.0, 1.0, 1.0]
    assert dict(dataset.dropped) == {}
    assert dataset.select(np.array([1])).signals["total_dur"].tolist() == [8317.0]


def test_tables_become_features(tmp_path: Path) -> None:
    dataset = read_dataset(kion(tmp_path))
    assert dataset.users is not None
    assert dataset.users["age"].to_list() == ["age_25_34", None, None]
    assert dataset.items is not None
    row = dict(zip(dataset.item_ids.take(np.arange(3)), dataset.items.rows(named=True), strict=True))
    assert row[9506]["genres"] == ["Мелодрамы", "драмы"]
    assert row[9506]["actors"] == ["Адольфо Фернандес", "Ана"]
    assert row[9506]["title"] == "Поговори с ней"
    assert row[1659]["countries"] is None
    assert row[7107]["content_type"] is None


def test_cleaning_fills_and_normalises(tmp_path: Path) -> None:
    dataset = clean(read_dataset(kion(tmp_path)))
    assert dataset.signals["watched_pct"].tolist() == [72.0, 100.0, 0.0]
    assert dataset.users is not None
    users = dict(zip(dataset.user_ids.take(np.arange(3)), dataset.users.rows(), strict=True))
    assert users[176549] == ("age_25_34", "income_60_90", "M", 1)
    assert users[699317] == ("age_unknown", "income_unknown", "F", 0)
    assert users[656683] == ("age_unknown", "income_unknown", "sex_unknown", 0)
    assert dataset.items is not None
    items = dict(zip(dataset.item_ids.take(np.arange(3)), dataset.items.rows(named=True), strict=True))
    film, series = items[9506], items[1659]
    assert film["genres"] == ["драмы", "мелодрамы"]
    assert film["countries"] == ["испания"]
    assert (film["release_year"], film["release_decade"], film["age_rating"], film["for_kids"]) == (
        2002,
        "2000s",
        16,
        0,
    )
    assert (series["release_year"], series["release_decade"]) == (2020, "2020s")
    assert (series["age_rating"], series["for_kids"]) == (0, 1)
    assert series["countries"] == ["россия"]


@pytest.mark.parametrize(
    ("file", "column"),
    [("users.csv", "kids_flg"), ("items.csv", "keywords"), ("interactions.csv", "total_dur")],
)
def test_a_table_without_one_of_its_columns_is_refused(tmp_path: Path, file: str, column: str) -> None:
    folder = kion(tmp_path)
    (folder / file).write_text((folder / file).read_text().replace(column, "other", 1))
    with pytest.raises(DataError, match=f"no column '{column}'") as caught:
        read_dataset(folder, reader="kion")
    assert caught.value.file.endswith(file)


def test_with_tables_of_another_schema_it_is_read_as_a_plain_table(tmp_path: Path) -> None:
    folder = kion(tmp_path)
    (folder / "users.csv").write_text("user_id,plan\n176549,gold\n")
    dataset = read_dataset(folder)
    assert dataset.users is not None
    assert dataset.users.columns == ["plan"]
    assert dataset.time_kind == "timestamp"


@pytest.mark.parametrize(
    ("line", "column", "value"),
    [
        ("1,2,2021-05-11,-1,50.0", "total_dur", "-1"),
        ("1,2,2021-05-11,100,100.5", "watched_pct", "100.5"),
        ("1,2,11.05.2021,100,50.0", "last_watch_dt", "11.05.2021"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, line: str, column: str, value: str) -> None:
    folder = kion(tmp_path)
    (folder / "interactions.csv").write_text(INTERACTIONS + line + "\n")
    with pytest.raises(DataError) as caught:
        read_dataset(folder)
    assert (caught.value.row, caught.value.column, caught.value.value) == (4, column, value)
