from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from models.data.botify import read_recommendations
from models.data.read import read_dataset
from service.errors import DataError

TRACKS = (
    '{"artist": "Jack | Jill", "title": "1999", "track": 0, "genres": ["pop", "rock"], "year": 1999}\n'
    '{"artist": "Billy", "title": "Nothing", "track": 5, "recommendations": [0]}\n'
)
LOG = (
    '{"message":"next","timestamp":1600000000000,"user":7,"track":5,"time":1.0,"latency":0.001,"recommendation":0}\n'
    '{"message":"last","timestamp":1600000001000,"user":7,"track":0,"time":0.25,"latency":0.001,"recommendation":null}\n'
)


@pytest.mark.parametrize("zipped", [False, True])
def test_tracks_are_items_and_the_log_is_events(tmp_path: Path, zipped: bool) -> None:
    for name, text in (("tracks.json", TRACKS), ("data.json", LOG)):
        (tmp_path / (name + ".gz" * zipped)).write_bytes(
            gzip.compress(text.encode()) if zipped else text.encode()
        )
    dataset = read_dataset(tmp_path)
    assert dataset.item_ids.take(dataset.item_rows) == [5, 0]
    assert dataset.times is not None
    assert dataset.times.tolist() == [1600000000000, 1600000001000]
    assert dataset.signals["time"].tolist() == [1.0, 0.25]
    assert dataset.items is not None
    assert dataset.items.rows(named=True) == [
        {"artist": "Jack | Jill", "title": "1999", "genres": ["pop", "rock"], "year": 1999},
        {"artist": "Billy", "title": "Nothing", "genres": None, "year": None},
    ]


def test_tracks_alone_are_a_catalogue_without_events(tmp_path: Path) -> None:
    (tmp_path / "tracks.json").write_text(TRACKS)
    dataset = read_dataset(tmp_path)
    assert (len(dataset), dataset.n_users, dataset.n_items) == (0, 0, 2)


@pytest.mark.parametrize(
    ("text", "by", "keys", "lists"),
    [
        ('{"user": 3, "tracks": [5, 0]}\n\n{"user": 1, "tracks": []}\n', "user", [3, 1], [[5, 0], []]),
        ('{"item_id": 0, "recommendations": [7, 1]}\n', "item", [0], [[7, 1]]),
        ('{"track": 2, "artist": "A", "title": "T", "recommendations": [4]}\n', "item", [2], [[4]]),
        ("[246, 176]", "all", [], [[246, 176]]),
        ("  [\n1]", "all", [], [[1]]),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_recommendation_file(
    tmp_path: Path, text: str, by: str, keys: list[int], lists: list[list[int]], zipped: bool
) -> None:
    file = tmp_path / "lists"
    file.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    read = read_recommendations(file)
    assert read.by == by
    assert read.keys.tolist() == keys
    assert [read.of(i).tolist() for i in range(len(read))] == lists
    assert read.items.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('{"user": 3, "tracks": [5]}\n\n{"user": 3, "tracks": [5]}', 3),
        ('{"user": 3, "tracks": [5]}\n{"item_id": 3, "recommendations": [5]}', 2),
        ('{"user": 3, "tracks": [5, "six"]}', 1),
        ('{"user": 3, "tracks": [5, true]}', 1),
        ('{"user": -3, "tracks": [5]}', 1),
        ('{"user": 3, "tracks": 5}', 1),
        ('{"user": 3}', 1),
        ('{"user": 3, "tracks": [5]}\n{"user"', 2),
        ("7", 1),
        ("[1, -1]", None),
        ("[1,", None),
        ("", None),
    ],
)
def test_a_bad_recommendation_file_is_refused_naming_the_row(
    tmp_path: Path, text: str, row: int | None
) -> None:
    (tmp_path / "lists").write_text(text)
    with pytest.raises(DataError) as caught:
        read_recommendations(tmp_path / "lists")
    assert caught.value.row == row


@pytest.mark.parametrize(
    ("tracks", "row", "column"),
    [
        ('{"title": "x"}', 1, "track"),
        ('{"track": 1}\n{"track": 1}', 2, "item_id"),
        ('{"track": "1"}', 1, "track"),
    ],
)
def test_a_bad_catalogue_is_refused_naming_the_row(
    tmp_path: Path, tracks: str, row: int, column: str
) -> None:
    (tmp_path / "tracks.json").write_text(tracks)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert (caught.value.row, caught.value.column) == (row, column)


def test_a_bad_line_of_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "tracks.json").write_text(TRACKS)
    (tmp_path / "data.json").write_text(LOG + '{"user":7,"track":5,"time":"long","timestamp":1}\n')
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert (caught.value.row, caught.value.column, caught.value.value) == (3, "time", "long")
