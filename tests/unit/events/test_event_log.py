"""What is acknowledged is on the disk, once; what can't be written is refused; impressions never wait."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import threading
from pathlib import Path

import orjson
import pytest
from events_at import FaultyFiles, feedback, ids_in, impression, logging_to
from running import wait_until

from service.domain import Exploration, ItemFilter, Plan, Query
from service.errors import EventsUnavailable, InputError
from service.events import log as event_log
from service.events.frames import frame
from service.events.log import AppendResult, EventLog
from service.events.metrics import BROKEN, FULL, WRITING
from service.events.reading import read_records, verify
from service.events.series import segments_in
from service.telemetry import Telemetry


def state_of(log: EventLog) -> int:
    return log._counts.state


async def test_an_acknowledged_event_can_be_read_with_all_its_fields(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        assert await log.append([feedback("a", request_id="r-1")]) == AppendResult(1, 0)
        (record,) = read_records(tmp_path)
    assert record == {
        "type": "view",
        "event_id": "a",
        "user_id": 100,
        "item_id": 10,
        "timestamp_ms": 1_700_000_000_000,
        "value": 0.5,
        "request_id": "r-1",
        "received_ms": 1_700_000_000_500,
    }


async def test_the_sync_comes_between_the_write_and_the_answer(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files) as log:
        for number in range(5):
            await log.append([feedback(str(number))])
            assert files.done[-2:] == ["append", "sync"]
            assert len(ids_in(tmp_path)) == number + 1


async def test_a_segments_name_is_synced_before_anything_in_it_is_acknowledged(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files, segment_bytes=200) as log:
        for number in range(4):
            await log.append([feedback(str(number))])
        segments = segments_in(log.series)
    assert len(segments) == 2
    made = [index for index, name in enumerate(files.done) if name == "create"]
    assert len(made) == 2
    for index in made:
        assert files.done[index + 1 : index + 4] == ["sync_folder", "append", "sync"]
    assert files.done[made[1] - 1] == "sync"  # the old segment is whole before there is a new one


async def test_batches_that_come_together_share_a_sync(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files) as log:
        results = await asyncio.gather(*(log.append([feedback(str(number))]) for number in range(500)))
        assert results == [AppendResult(1, 0)] * 500
        assert files.done.count("sync") < 250
    assert sorted(ids_in(tmp_path)) == sorted(map(str, range(500)))


async def test_an_event_sent_again_is_counted_and_not_written(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        assert await log.append([feedback("a"), feedback("a"), feedback("b")]) == AppendResult(2, 1)
        assert await log.append([feedback("b"), feedback("c")]) == AppendResult(1, 1)
        together = await asyncio.gather(*(log.append([feedback("d")]) for _ in range(20)))
    assert sum(result.accepted for result in together) == 1
    assert ids_in(tmp_path) == ["a", "b", "c", "d"]


async def test_ids_are_remembered_across_a_restart(tmp_path: Path) -> None:
    async with logging_to(tmp_path, segment_bytes=150) as log:
        await log.append([feedback(str(number)) for number in range(10)])
        await log.append([feedback("last")])
    async with logging_to(tmp_path) as log:
        assert await log.append([feedback("3"), feedback("last"), feedback("new")]) == AppendResult(1, 2)


async def test_a_torn_end_is_cut_off_and_told(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        await log.append([feedback("a"), feedback("b")])
        (segment,) = segments_in(log.series)
    with segment.open("ab") as file:
        file.write(frame(feedback("torn").payload())[:-1])
    said: list[tuple[str, str]] = []
    async with logging_to(tmp_path, say=lambda level, message, **_: said.append((level, message))) as log:
        assert await log.append([feedback("c")]) == AppendResult(1, 0)
    assert ids_in(tmp_path) == ["a", "b", "c"]
    assert said == [("WARNING", "the event log's torn end was removed")]
    assert verify(tmp_path).corrupt == []


async def test_records_behind_damage_are_kept_and_the_damage_stays_to_be_seen(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        await log.append([feedback(name) for name in "abc"])
        (segment,) = segments_in(log.series)
    data = bytearray(segment.read_bytes())
    length = len(data) // 3
    data[length + 20] ^= 0xFF
    segment.write_bytes(data)
    async with logging_to(tmp_path) as log:
        assert await log.append([feedback("d"), feedback("c"), feedback("b")]) == AppendResult(2, 1)
    assert segment.read_bytes() == data
    assert ids_in(tmp_path) == ["a", "c", "d", "b"]
    (broken,) = verify(tmp_path).corrupt
    assert (broken.file, broken.offset, broken.bytes) == ("worker-0/000000000001.log", length, length)
    assert broken.reason == "wrong checksum"


async def test_a_full_disk_refuses_explicitly_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    files = FaultyFiles()
    said: list[str] = []
    async with logging_to(tmp_path, files=files, say=lambda _, message, **__: said.append(message)) as log:
        await log.append([feedback("before")])
        files.room = 250  # one whole record, and a part of the next
        with pytest.raises(EventsUnavailable, match="no space"):
            await log.append([feedback("a"), feedback("b")])
        assert state_of(log) == FULL
        with pytest.raises(EventsUnavailable, match="no space"):
            await log.append([feedback("b")])
        assert verify(tmp_path).torn == []  # the part was taken back
        files.room = None
        assert await log.append([feedback("a"), feedback("b")]) == AppendResult(2, 0)
        assert state_of(log) == WRITING
    summary = verify(tmp_path)
    assert (summary.corrupt, summary.torn) == ([], [])
    assert set(ids_in(tmp_path)) == {"before", "a", "b"}
    assert said == ["there is no space for events; trying on", "events are written again"]


async def test_no_room_for_a_new_segment_refuses_until_there_is(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files, segment_bytes=1) as log:
        await log.append([feedback("a")])
        files.failing = {"create": errno.ENOSPC}
        with pytest.raises(EventsUnavailable, match="no space"):
            await log.append([feedback("b")])
        files.failing = {}
        assert await log.append([feedback("b")]) == AppendResult(1, 0)
    assert ids_in(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("failing", [errno.EIO, errno.ENOSPC])
async def test_a_sync_that_failed_is_the_end_until_a_restart(tmp_path: Path, failing: int) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files) as log:
        await log.append([feedback("safe")])
        files.failing = {"sync": failing}
        with pytest.raises(EventsUnavailable, match="broken until the service restarts"):
            await log.append([feedback("lost?")])
        files.failing = {}
        with pytest.raises(EventsUnavailable, match="broken until the service restarts"):
            await log.append([feedback("later")])
        assert state_of(log) == BROKEN
    async with logging_to(tmp_path) as log:
        result = await log.append([feedback("safe"), feedback("later")])
        assert result == AppendResult(1, 1)
    assert {"safe", "later"} <= set(ids_in(tmp_path))


async def test_a_part_that_can_not_be_taken_back_is_the_end_too(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files) as log:
        await log.append([feedback("a")])
        files.room, files.failing = 10, {"truncate": errno.EIO}
        with pytest.raises(EventsUnavailable, match="broken"):
            await log.append([feedback("b")])
    async with logging_to(tmp_path) as log:
        assert await log.append([feedback("b")]) == AppendResult(1, 0)
    assert ids_in(tmp_path) == ["a", "b"]


async def test_an_input_output_error_on_write_is_the_end_too(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files) as log:
        await log.append([feedback("a")])
        files.failing = {"append": errno.EIO}
        with pytest.raises(EventsUnavailable, match="broken"):
            await log.append([feedback("b")])


async def test_an_event_that_has_no_bytes_fails_alone(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        outcomes = await asyncio.gather(
            log.append([feedback("good")]),
            log.append([feedback("fine"), feedback("\ud800")]),
            return_exceptions=True,
        )
        assert outcomes[0] == AppendResult(1, 0)
        assert isinstance(outcomes[1], EventsUnavailable)
        assert await log.append([feedback("fine")]) == AppendResult(1, 0)


class Held(FaultyFiles):
    """Its disk waits until let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def append(self, descriptor: int, data: memoryview) -> int:
        self.gate.wait(20)
        return super().append(descriptor, data)


async def test_a_disk_that_hangs_is_told_and_what_waits_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MAX_WAITING", 3)
    files = Held()
    async with logging_to(tmp_path, files=files, wait_s=0.05) as log:
        log.emit(impression("first"))  # the series is open once this is written
        await asyncio.to_thread(wait_until, lambda: "first" in ids_in(tmp_path))
        files.gate.clear()
        with pytest.raises(EventsUnavailable, match="the disk is too slow"):
            await log.append([feedback("a"), feedback("b")])
        with pytest.raises(EventsUnavailable, match="too many events wait"):
            await log.append([feedback("c"), feedback("d")])
        files.gate.set()
    assert ids_in(tmp_path) == ["first", "a", "b"]


async def test_impressions_are_written_beside_and_at_the_latest_at_the_end(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        for number in range(3000):
            log.emit(impression(f"r-{number}"))
    ids = ids_in(tmp_path)
    assert ids == [f"r-{number}" for number in range(3000)]


async def test_an_impression_keeps_all_that_was_shown(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        query = Query(100, 2, history=(14, 10), filter=ItemFilter(deny=frozenset({16, 12})))
        plan = Plan("als", 20, Exploration("epsilon", 0.5))
        log.emit(
            impression(
                "r", treatments={"HSTU": "T1"}, propensities=[0.25, 0.75], part=3, query=query, plan=plan,
                recent=(18, 20),
            )
        )  # fmt: skip
    (record,) = read_records(tmp_path)
    assert record == {
        "type": "impression",
        "event_id": "r/3",
        "request_id": "r",
        "timestamp_ms": 1_700_000_000_250,
        "user_id": 100,
        "bundle": "b1",
        "model": "als",
        "treatments": {"HSTU": "T1"},
        "items": [10, 12],
        "scores": [1.5, 0.5],
        "source": "personal",
        "degraded": [],
        "propensities": [0.25, 0.75],
        "found_by": None,
        "latency_ms": 12.5,
        "asked": {
            "k": 2,
            "history": [14, 10],
            "exclude_seen": True,
            "filter": {"allow": None, "deny": [12, 16], "attributes": {}},
            "recent": 2,
            "recent_digest": hashlib.blake2b(b"[18,20]", digest_size=8).hexdigest(),
            "retriever": "auto",
            "plan": orjson.loads(orjson.dumps(plan)),
        },
    }
    assert record["asked"]["plan"]["exploration"] == {"kind": "epsilon", "strength": 0.5}


async def test_impressions_above_the_bound_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MAX_IMPRESSIONS", 10)
    files = Held()
    files.gate.clear()
    async with logging_to(tmp_path, files=files) as log:
        log.emit(impression("taken"))
        await asyncio.to_thread(wait_until, lambda: not log._impressions)
        for number in range(25):
            log.emit(impression(str(number)))
        assert log._counts.dropped == 15
        files.gate.set()
    assert ids_in(tmp_path) == ["taken", *(str(number) for number in range(10))]


async def test_impressions_that_find_no_room_are_dropped_and_counted(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with logging_to(tmp_path, files=files) as log:
        await log.append([feedback("a")])
        files.room = 0
        log.emit(impression("r"))
        await asyncio.to_thread(wait_until, lambda: log._counts.dropped == 1)
    assert ids_in(tmp_path) == ["a"]


async def test_an_impression_that_has_no_bytes_is_dropped_alone(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        log.emit(impression("bad", user_id=object()))
        log.emit(impression("good"))
    assert log._counts.dropped == 1
    assert ids_in(tmp_path) == ["good"]


async def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        await log.append([feedback("a")])
    with pytest.raises(EventsUnavailable, match="stopping"):
        await log.append([feedback("b")])


async def test_two_writers_never_share_a_series(tmp_path: Path) -> None:
    async with logging_to(tmp_path, slot=1) as one, logging_to(tmp_path, slot=1) as other:
        assert (one.series.name, other.series.name) == ("worker-1", "worker-2")
        await asyncio.gather(one.append([feedback("a")]), other.append([feedback("b")]))
    async with logging_to(tmp_path, slot=1) as again:
        assert again.series.name == "worker-1"
    assert sorted(ids_in(tmp_path)) == ["a", "b"]


async def test_a_folder_that_can_not_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(InputError, match="RECO_EVENTS_DIR"):
        async with logging_to(taken):
            pass


async def test_counts_reach_the_metrics(tmp_path: Path) -> None:
    telemetry = Telemetry(budget_s=0.05)
    async with logging_to(tmp_path, telemetry=telemetry) as log:
        await log.append([feedback("a"), feedback("a"), feedback("b", type="click")])
        log.flush_counts()
        log.emit(impression("r"))
    shown = telemetry.exposition().decode()
    for line in (
        'reco_events_total{result="accepted",type="view"} 1.0',
        'reco_events_total{result="duplicate",type="view"} 1.0',
        'reco_events_total{result="accepted",type="click"} 1.0',
        'reco_events_total{result="accepted",type="slate"} 1.0',
        "reco_events_commit_seconds_count 1.0",
        "reco_impressions_dropped_total 0.0",
        "reco_events_queue 0.0",
        "reco_events_log_state 0.0",
    ):
        assert f"\n{line}\n" in shown, line
