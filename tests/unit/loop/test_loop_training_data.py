from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from loadtest.loop.training_data import hold_out, judging_pairs, likes_of_events, likes_of_listening_log


def test_likes_are_the_listens_of_at_least_half_a_track_by_time(tmp_path: Path) -> None:
    log = tmp_path / "data.json"
    log.write_text(
        "\n".join(
            json.dumps({"message": message, "timestamp": at, "user": 7, "track": track, "time": time})
            for message, at, track, time in [
                ("next", 2000, 1, 1),
                ("last", 3000, 2, 0.49),
                ("next", 1000, 3, 0.5),
            ]
        )
    )

    likes = likes_of_listening_log(log)

    assert likes.columns == ["user_id", "item_id", "timestamp", "weight", "organic"]
    assert likes["item_id"].to_list() == [3, 1]
    assert likes["weight"].to_list() == [0.5, 1.0]
    assert likes["timestamp"].dt.epoch("ms").to_list() == [1000, 2000]


def test_of_events_the_views_and_last_ones_with_a_value_count(tmp_path: Path) -> None:
    rows = [
        ("view", "7", "1", 0.9),
        ("last", "7", "2", 0.6),
        ("view", "7", "3", 0.1),
        ("impression", "7", "4", 0.9),
        ("click", "7", "5", 1.0),
        ("view", "7", "6", None),
        ("impression", None, None, None),
    ]
    pl.DataFrame(
        {
            "type": [row[0] for row in rows],
            "user_id": [row[1] for row in rows],
            "item_id": [row[2] for row in rows],
            "timestamp_ms": list(range(len(rows))),
            "value": [row[3] for row in rows],
            "request_id": [None, *["answer"] * 6],
        }
    ).write_parquet(tmp_path / "events.parquet")

    likes = likes_of_events(tmp_path / "events.parquet")

    assert likes.select("user_id", "item_id").rows() == [(7, 1), (7, 2)]
    assert likes["organic"].to_list() == [True, False]  # the first names no answer: the user's own choice


def test_what_is_held_out_is_the_latest_and_nothing_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "data.json"
    log.write_text(
        "\n".join(json.dumps({"timestamp": at, "user": 1, "track": at, "time": 1.0}) for at in range(10))
    )

    learnt, latest = hold_out(likes_of_listening_log(log), 0.3)

    assert learnt["item_id"].to_list() == [0, 1, 2, 3, 4, 5, 6]
    assert latest["item_id"].to_list() == [7, 8, 9]


def test_judged_is_by_own_choices_that_are_new() -> None:
    known = pl.DataFrame({"user_id": [1, 2], "item_id": [5, 5]})
    test = pl.DataFrame(
        {"user_id": [1, 1, 1, 3, 4], "item_id": [5, 6, 6, 5, 5], "organic": [True, True, True, True, False]}
    )

    assert judging_pairs(test, known).rows() == [(1, 6), (3, 5)]
