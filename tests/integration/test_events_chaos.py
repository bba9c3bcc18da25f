"""Killed again and again, the service loses nothing that it acknowledged."""

from __future__ import annotations

from pathlib import Path

import orjson

from loadtest.chaos import events
from loadtest.chaos.events import Report, event, run
from loadtest.chaos.service import make_artifacts
from service.events.frames import frame


def test_fifty_kills_lose_and_spoil_nothing(tmp_path: Path) -> None:
    report = run(make_artifacts(tmp_path), tmp_path, kills=50, senders=4, workers=2, seed=11)
    assert report.kept, report
    assert (report.kills, report.restarts) == (50, 5)
    assert (report.lost, report.altered, report.corrupt, report.duplicates_exported) == (0, 0, 0, 0)
    assert report.on_disk >= report.acknowledged > 100
    assert report.impressions > 0
    assert report.examples == []


def test_the_harness_notices_what_is_lost_altered_and_corrupt(tmp_path: Path) -> None:
    logged = [event(0, number) | {"received_ms": number} for number in range(6)]
    logged[1]["value"] = -1.0
    order = ("type", *(name for name in logged[0] if name != "type"))
    payloads = [orjson.dumps({name: one[name] for name in order}) for one in logged]
    data = bytearray(b"".join(map(frame, payloads)))
    data[-1] ^= 1
    series = tmp_path / "events" / "worker-0"
    series.mkdir(parents=True)
    (series / "000000000001.log").write_bytes(data)
    (series / "000000000002.log").write_bytes(frame(payloads[0]))
    report = Report(acknowledged=8)
    events._examine(tmp_path / "events", tmp_path / "out.jsonl", {0: 8}, report)
    assert (report.on_disk, report.altered, report.corrupt, report.duplicates_on_disk) == (5, 1, 1, 1)
    assert (report.lost, report.duplicates_exported) == (3, 0)
    assert report.examples[1:] == ["lost: 0-5", "lost: 0-6", "lost: 0-7"]
    assert not report.kept
