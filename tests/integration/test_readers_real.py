"""Real files through the readers and splits, against a plain reading of the same files written out here."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from models.data.botify import read_recommendations
from models.data.dataset import Dataset
from models.data.read import read_dataset
from models.data.splits import (
    global_time,
    hold_out_users,
    last_fraction,
    leave_last_out,
    validation_split,
)

Pairs = Counter[tuple[int, int]]


@pytest.fixture(scope="module")
def movielens_1m(real_data: Path) -> Dataset:
    return read_dataset(real_data / "movielens-1m")


def plain(folder: Path) -> list[dict[str, int]]:
    with gzip.open(folder / "interactions.csv.gz", "rt") as file:
        return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]


def pairs(dataset: Dataset) -> Pairs:
    users, items = dataset.user_ids.take(dataset.user_rows), dataset.item_ids.take(dataset.item_rows)
    return Counter(zip(users, items, strict=True))


def plain_pairs(rows: list[dict[str, int]]) -> Pairs:
    return Counter((row["user_id"], row["item_id"]) for row in rows)


@pytest.mark.parametrize(
    ("name", "n_events", "n_users", "n_items", "time_kind"),
    [
        ("movielens-100k", 100_000, 943, 1_682, "timestamp"),
        ("movielens-1m", 1_000_209, 6_040, 3_883, "position"),
        ("amazon-grocery", 121_892, 14_681, 8_713, "timestamp"),
        ("amazon-beauty", 198_502, 22_363, 12_101, "position"),
        ("citeulike-a", 204_986, 5_551, 16_980, None),
    ],
)
def test_every_data_set_is_read_whole(
    real_data: Path, name: str, n_events: int, n_users: int, n_items: int, time_kind: str | None
) -> None:
    dataset = read_dataset(real_data / name)
    assert (len(dataset), dataset.n_users, dataset.n_items) == (n_events, n_users, n_items)
    assert dataset.time_kind == time_kind
    assert dict(dataset.dropped) == {}


def test_movielens_100k_is_read_as_it_is_written(real_data: Path) -> None:
    dataset, rows = read_dataset(real_data / "movielens-100k"), plain(real_data / "movielens-100k")
    assert list(pairs(dataset).elements()) == list(plain_pairs(rows).elements())
    assert dataset.times is not None
    assert dataset.times.tolist() == [row["timestamp"] * 1000 for row in rows]
    assert dataset.ratings is not None
    assert dataset.ratings.tolist() == [row["rating"] for row in rows]
    assert dataset.users is not None
    assert dataset.users.row(dataset.user_ids.row_of(1), named=True) == {
        "age": 24, "gender": "M", "occupation": "technician", "zip": "85711"
    }  # fmt: skip
    assert dataset.items is not None
    toy_story = dataset.items.row(dataset.item_ids.row_of(1), named=True)
    assert toy_story["genres"] == ["Animation", "Children's", "Comedy"]


@pytest.mark.parametrize("name", ["movielens-100k", "amazon-grocery"])
def test_the_time_split_is_the_reference_split(real_data: Path, name: str) -> None:
    rows = plain(real_data / name)
    cut = np.quantile([row["timestamp"] for row in rows], 0.9)
    train = [row for row in rows if row["timestamp"] <= cut]
    test = [row for row in rows if row["timestamp"] > cut]
    users, items = {row["user_id"] for row in train}, {row["item_id"] for row in train}
    warm = [row for row in test if row["user_id"] in users and row["item_id"] in items]
    dataset = read_dataset(real_data / name)
    split = global_time(dataset, quantile=0.9)
    assert pairs(split.train) == plain_pairs(train)
    assert pairs(split.test) == plain_pairs(test)
    split = global_time(dataset, quantile=0.9, warm=True)
    assert pairs(split.test) == plain_pairs(warm)
    assert sum(split.dropped.values()) == len(test) - len(warm)


def test_leave_one_out_is_the_reference_split(real_data: Path) -> None:
    rows = plain(real_data / "amazon-beauty")
    last: dict[int, dict[str, int]] = {}
    for row in rows:
        if row["user_id"] not in last or row["pos"] > last[row["user_id"]]["pos"]:
            last[row["user_id"]] = row
    split = leave_last_out(read_dataset(real_data / "amazon-beauty"))
    assert pairs(split.test) == plain_pairs(list(last.values()))
    assert pairs(split.train) == plain_pairs(rows) - plain_pairs(list(last.values()))


def test_the_last_fifth_is_the_reference_split(real_data: Path, movielens_1m: Dataset) -> None:
    by_user: dict[int, list[dict[str, int]]] = defaultdict(list)
    for row in plain(real_data / "movielens-1m"):
        by_user[row["user_id"]].append(row)
    test = []
    for events in by_user.values():
        n_test = max(int(len(events) * 0.2), 1)
        test += [row for row in events if row["pos"] >= len(events) - n_test]
    assert pairs(last_fraction(movielens_1m, 0.2).test) == plain_pairs(test)


def test_cold_users_are_the_reference_split(real_data: Path, movielens_1m: Dataset) -> None:
    rows = plain(real_data / "movielens-1m")
    known = {row["item_id"] for row in rows if row["user_id"] % 10 != 3}
    test = [row for row in rows if row["user_id"] % 10 == 3 and row["pos"] < 20 and row["item_id"] in known]
    ids = np.array(movielens_1m.user_ids.take(np.arange(movielens_1m.n_users)))
    split = hold_out_users(movielens_1m, ids % 10 == 3, first=20)
    assert pairs(split.test) == plain_pairs(test)
    assert len(split.train) == sum(row["user_id"] % 10 != 3 for row in rows)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("movielens-100k", "last_fraction"),  # 87 warm users after the quantile
        ("amazon-grocery", "global_time"),
        ("amazon-beauty", "last_fraction"),
        ("citeulike-a", "random_holdout"),
    ],
)
def test_validation_suits_the_data(real_data: Path, name: str, chosen: str) -> None:
    split = validation_split(read_dataset(real_data / name))
    assert split.name == chosen
    assert len(np.unique(split.test.user_rows)) >= 300


def test_botify_files_are_read(real_data: Path) -> None:
    folder = real_data / "botify"
    dataset = read_dataset(folder)
    assert (len(dataset), dataset.n_items) == (0, 50_000)
    assert dataset.items is not None
    assert dataset.items.row(0, named=True) == {"artist": "Jack Johnson", "title": "The Cove"}
    assert read_recommendations(folder / "2026_hstu_recommendations.json.gz").by == "user"
    by_item = read_recommendations(folder / "2026_sasrec_i2i.jsonl.gz")
    assert by_item.by == "item"
    assert by_item.of(0).tolist() == [2, 7133, 6, 7, 1, 7134, 9, 7104, 8, 3]
    top = read_recommendations(folder / "top_tracks.json.gz")
    assert (top.by, len(top)) == ("all", 1)
    assert top.of(0).tolist()[:3] == [246, 176, 177]
