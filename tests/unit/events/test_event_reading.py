"""Readers: in the order of logging, each once, damage named, and memory that does not grow."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from events_at import feedback, impression, logging_to
from hypothesis import given
from hypothesis import strategies as st

from models import events_table
from models.events_table import SCHEMA, row_of, write_records
from service.errors import InputError
from service.events.frames import frame
from service.events.reading import Broken, Distinct, Follower, distinct_records, read_records, verify


def segment(folder: Path, series: int, number: int, *payloads: bytes) -> Path:
    path = folder / f"worker-{series}" / f"{number:012d}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(frame, payloads)))
    return path


def view(event_id: str, received_ms: int, **changes: Any) -> bytes:
    return feedback(event_id, received_ms=received_ms, **changes).payload()


def test_series_are_read_as_one_by_the_time_of_logging(tmp_path: Path) -> None:
    segment(tmp_path, 0, 1, view("a", 10), view("c", 30))
    segment(tmp_path, 0, 2, view("e", 50))
    segment(tmp_path, 1, 1, view("b", 20), impression("d", at=0.04).payload())
    assert [record["event_id"] for record in read_records(tmp_path)] == ["a", "b", "c", "d", "e"]


def test_what_two_workers_logged_is_taken_once_from_the_earlier(tmp_path: Path) -> None:
    segment(tmp_path, 0, 1, view("a", 10), view("same", 40, value=2.0))
    segment(tmp_path, 1, 1, view("same", 20, value=1.0), view("a", 30))
    taken = [(record["event_id"], record["received_ms"]) for record in distinct_records(tmp_path)]
    assert taken == [("a", 10), ("same", 20)]
    assert verify(tmp_path).duplicates == 2


def test_a_slate_and_feedback_of_one_id_are_two(tmp_path: Path) -> None:
    segment(tmp_path, 0, 1, impression("x", at=0.01).payload(), view("x", 20, type="impression"))
    assert len(list(distinct_records(tmp_path))) == 2


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=60))
def test_distinct_is_exact(names: list[str]) -> None:
    with Distinct() as distinct:
        assert [distinct.is_new(name) for name in names] == [
            name not in names[:place] for place, name in enumerate(names)
        ]


def test_damage_is_named_and_reading_goes_on_behind_it(tmp_path: Path) -> None:
    payloads = [view(str(number), number) for number in range(4)]
    path = segment(tmp_path, 0, 1, *payloads)
    data = bytearray(path.read_bytes())
    data[len(data) // 4 + 30] ^= 1
    path.write_bytes(data)
    segment(tmp_path, 0, 2, view("4", 4))
    damaged: list[Broken] = []
    assert [r["event_id"] for r in read_records(tmp_path, damaged.append)] == ["0", "2", "3", "4"]
    size = len(frame(payloads[1]))
    assert damaged == [Broken("worker-0/000000000001.log", size, size, "wrong checksum")]
    assert verify(tmp_path).corrupt == damaged


def test_an_end_cut_short_is_torn_in_the_newest_segment_and_corrupt_in_an_older(tmp_path: Path) -> None:
    path = segment(tmp_path, 0, 1, view("a", 1), view("b", 2))
    path.write_bytes(path.read_bytes()[:-1])
    summary = verify(tmp_path)
    assert ([t.reason for t in summary.torn], summary.corrupt, summary.records) == (["cut short"], [], 1)
    damaged: list[Broken] = []
    assert len(list(read_records(tmp_path, damaged.append))) == 1
    assert damaged == []
    segment(tmp_path, 0, 2, view("c", 3))
    summary = verify(tmp_path)
    assert (summary.torn, [c.reason for c in summary.corrupt], summary.records) == ([], ["cut short"], 2)


def test_a_record_that_is_no_event_is_corrupt(tmp_path: Path) -> None:
    segment(tmp_path, 0, 1, b'{"type":"view"', b'{"type":"view"}', view("a", 1))
    summary = verify(tmp_path)
    assert [c.reason for c in summary.corrupt] == ["not an event"] * 2
    damaged: list[Broken] = []
    assert [r["event_id"] for r in read_records(tmp_path, damaged.append)] == ["a"]
    assert damaged == summary.corrupt


def test_verification_counts_everything(tmp_path: Path) -> None:
    one = segment(tmp_path, 0, 1, view("a", 10), view("b", 70, type="click"))
    other = segment(tmp_path, 3, 1, impression("r", at=0.005).payload(), view("a", 20))
    assert verify(tmp_path).document() == {
        "records": 4,
        "duplicates": 1,
        "types": {"view": 2, "click": 1, "slate": 1},
        "series": 2,
        "segments": 2,
        "bytes": one.stat().st_size + other.stat().st_size,
        "first_ms": 5,
        "last_ms": 70,
        "corrupt": [],
        "torn": [],
    }


def test_a_follower_sees_each_record_once_through_rotation_and_torn_ends(tmp_path: Path) -> None:
    chance = random.Random(5)
    payloads = [view(str(number), number) for number in range(60)]
    follower = Follower(segment(tmp_path, 0, 1).parents[1])
    seen: list[str] = []
    path, pending = segment(tmp_path, 0, 1), b"".join(map(frame, payloads[:40]))
    while pending:
        step = chance.randrange(1, 400)
        with path.open("ab") as file:
            file.write(pending[:step])
        pending = pending[step:]
        seen += [record["event_id"] for record in follower.news()]
    segment(tmp_path, 0, 2, *payloads[40:50])
    segment(tmp_path, 1, 1, *payloads[50:])
    seen += [record["event_id"] for record in follower.news()]
    assert seen == [str(number) for number in range(60)]
    path.unlink()
    assert list(follower.news()) == []


async def test_what_the_log_writes_fits_the_table(tmp_path: Path) -> None:
    async with logging_to(tmp_path / "events") as log:
        await log.append([feedback("a", user_id="ü", item_id="item/1", value=None, request_id="r")])
        log.emit(impression("r", treatments={"HSTU": "T1"}, propensities=[0.25, 0.75], user_id=None))
    out = tmp_path / "out" / "events.parquet"
    assert write_records(distinct_records(tmp_path / "events"), out) == 2
    table = pl.read_parquet(out)
    assert dict(table.schema) == dict(SCHEMA)
    rows = {row["type"]: row for row in table.to_dicts()}
    assert rows["view"] == {
        **dict.fromkeys(SCHEMA), "event_id": "a", "type": "view", "user_id": "ü", "item_id": "item/1",
        "timestamp_ms": 1_700_000_000_000, "request_id": "r",
    }  # fmt: skip
    assert rows["impression"] == {
        "event_id": "r", "type": "impression", "user_id": None, "item_id": None, "timestamp_ms": 1_700_000_000_250,
        "value": None, "request_id": "r", "bundle": "b1", "model": "als", "source": "personal", "degraded": [],
        "treatments": '{"HSTU":"T1"}', "items": ["10", "12"], "scores": [1.5, 0.5], "propensities": [0.25, 0.75],
        "latency_ms": 12.5,
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 20])
def test_a_table_is_written_in_parts_and_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(events_table, "ROWS_AT_ONCE", 7)
    records = [orjson.loads(view(str(number), number)) for number in range(count)]
    out = tmp_path / "t.parquet"
    assert write_records(iter(records), out) == count
    table = pl.read_parquet(out)
    assert table.to_dicts() == [row_of(record) for record in records]
    assert dict(table.schema) == dict(SCHEMA)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_json_lines_are_the_records_themselves(tmp_path: Path) -> None:
    segment(tmp_path / "events", 0, 1, view("a", 1), impression("r").payload())
    write_records(distinct_records(tmp_path / "events"), tmp_path / "t.jsonl")
    lines = (tmp_path / "t.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line) for line in lines] == list(read_records(tmp_path / "events"))


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("before")

    def failing() -> Any:
        yield orjson.loads(view("a", 1))
        raise InputError("broken off")

    with pytest.raises(InputError, match="broken off"):
        write_records(failing(), out)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.parquet or \.jsonl"):
        write_records([], tmp_path / "t.csv")
