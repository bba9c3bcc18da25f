from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl

from loadtest.loop.training_data import (
    heard_of_events,
    heard_of_listening_log,
    hold_out,
    likes_of,
)


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

    heard = heard_of_listening_log(log)
    likes = likes_of(heard)

    assert heard.select("message", "track").rows() == [("next", 3), ("next", 1), ("last", 2)]
    assert likes.columns == ["user_id", "item_id", "timestamp", "weight"]
    assert likes["item_id"].to_list() == [3, 1]
    assert likes["weight"].to_list() == [0.5, 1.0]
    assert likes["timestamp"].dt.epoch("ms").to_list() == [1000, 2000]


def test_of_events_all_listens_count_those_broken_off_too(tmp_path: Path) -> None:
    rows = [
        ("view", "7", "1", 0.9),
        ("last", "7", "2", 0.6),
        ("impression", "7", "3", 0.1),
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
        }
    ).write_parquet(tmp_path / "events.parquet")

    heard = heard_of_events(tmp_path / "events.parquet")

    assert heard.select("message", "track", "time").rows() == [
        ("view", 1, 0.9),
        ("last", 2, 0.6),
        ("impression", 3, 0.1),
    ]
    assert likes_of(heard)["item_id"].to_list() == [1, 2]


def test_what_is_held_out_is_the_latest_and_begins_at_a_moment(tmp_path: Path) -> None:
    log = tmp_path / "data.json"
    log.write_text(
        "\n".join(
            json.dumps({"message": "next", "timestamp": at, "user": 1, "track": at, "time": 1.0})
            for at in range(10)
        )
    )

    learnt, begins = hold_out(heard_of_listening_log(log), 0.3)

    assert learnt["track"].to_list() == [0, 1, 2, 3, 4, 5, 6]
    assert begins == dt.datetime(1970, 1, 1, 0, 0, 0, 7000)
