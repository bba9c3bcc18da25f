from __future__ import annotations

import json
import os
import select
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access_log import CAPACITY, SERVICE_NAME, AccessLog, RequestRecord


class Pipe:
    """Where a log's lines go, and how they are read back."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def lines(self) -> list[dict[str, Any]]:
        os.close(self.writer)
        with os.fdopen(self.reader, "rb") as file:
            return [json.loads(line) for line in file]


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def log_to(pipe: Pipe, **changes: Any) -> AccessLog:
    return AccessLog(
        **{"descriptor": pipe.writer, "level": "INFO", "requests": True, "show_user_ids": True, **changes}
    )


def record(raw_path: bytes = b"/reco/als/7", query: bytes = b"", **changes: Any) -> RequestRecord:
    plain = RequestRecord(
        1_700_000_000.25,
        "GET",
        "http",
        b"service:8080",
        raw_path,
        query,
        200,
        0.001234,
        b"id-1",
        "als",
        "personal",
        (),
    )
    return plain._replace(**changes)


def written(pipe: Pipe, *records: RequestRecord, **changes: Any) -> list[dict[str, Any]]:
    log = log_to(pipe, **changes)
    log.start()
    for one in records:
        log.request(one)
    log.stop()
    return pipe.lines()


def test_a_request_is_one_line_with_the_templates_keys(pipe: Pipe) -> None:
    (line,) = written(pipe, record(query=b"k=5", degraded=("retrieve",)))
    assert line == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "INFO",
        "service_name": SERVICE_NAME,
        "logger": "access",
        "pid": os.getpid(),
        "method": "GET",
        "requested_url": "http://service:8080/reco/als/7?k=5",
        "status_code": 200,
        "request_time": 0.001234,
        "request_id": "id-1",
        "model": "als",
        "source": "personal",
        "degraded": ["retrieve"],
    }


def test_times_keep_their_milliseconds_from_second_to_second(pipe: Pipe) -> None:
    lines = written(pipe, *(record(at=1_700_000_000 + offset) for offset in (0.0, 0.75, 1.5, 0.25)))
    assert [line["time"][17:] for line in lines] == ["20.000Z", "20.750Z", "21.500Z", "20.250Z"]


def test_values_of_unknown_parameters_are_not_logged(pipe: Pipe) -> None:
    (line,) = written(pipe, record(query=b"access_token=hush&k=3&x=%68ush"))
    assert "hush" not in line["requested_url"]
    assert "k=3" in line["requested_url"]
    assert "access_token=" in line["requested_url"]


def test_user_ids_are_hashed_when_told_so_the_same_id_to_the_same_hash(pipe: Pipe) -> None:
    lines = written(
        pipe, record(b"/reco/als/4711"), record(b"/reco/knn/4711"), record(b"/reco/als/4712"),
        record(b"/get_recommendation", b"user_id=4711&k=2"), show_user_ids=False,
    )  # fmt: skip
    urls = [line["requested_url"] for line in lines]
    assert not any("4711" in url or "4712" in url for url in urls)
    hashes = [url.rpartition("/")[2] for url in urls[:3]]
    assert hashes[0] == hashes[1] != hashes[2]
    assert "k=2" in urls[3]


@given(
    st.lists(
        st.builds(
            record, st.binary(max_size=30), st.binary(max_size=30), host=st.binary(max_size=10),
            method=st.text(max_size=8),
            request_id=st.from_regex(rb"[A-Za-z0-9._-]{1,64}", fullmatch=True), seconds=st.floats(0, 1e6),
            model=st.none() | st.sampled_from(["als", '"', "ü", "\x00"]),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_whatever_was_asked_every_line_is_json(records: list[RequestRecord]) -> None:
    lines = written(Pipe(), *records)
    assert len(lines) == len(records)


def test_a_full_queue_drops_and_counts_and_never_blocks(pipe: Pipe) -> None:
    log = log_to(pipe)
    for _ in range(CAPACITY + 10):
        log.request(record())
    log.event(1.0, "ERROR", "one more")
    assert log.dropped == 11


def test_a_reader_that_is_gone_stops_nothing(pipe: Pipe) -> None:
    os.close(pipe.reader)
    log = log_to(pipe)
    log.start()
    log.request(record())
    log.stop()
    assert log.dropped == 1
    os.close(pipe.writer)


def test_an_error_brings_its_traceback_and_its_fields(pipe: Pipe) -> None:
    log = log_to(pipe)
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("seven")
    log.event(1_700_000_000.0, "ERROR", "it broke", error=caught.value, request_id="id-9")
    log.start()
    log.stop()
    (line,) = pipe.lines()
    assert (line["level"], line["message"], line["request_id"]) == ("ERROR", "it broke", "id-9")
    assert "ValueError: invalid literal" in line["traceback"]


@pytest.mark.parametrize(
    ("level", "requests", "events"), [("DEBUG", 1, 3), ("INFO", 1, 3), ("WARNING", 0, 2), ("ERROR", 0, 1)]
)
def test_the_level_holds_back_what_is_less_severe(pipe: Pipe, level: str, requests: int, events: int) -> None:
    log = log_to(pipe, level=level)
    assert log.requests is bool(requests)
    for severity in ("INFO", "WARNING", "ERROR"):
        log.event(1.0, severity, severity)
    log.start()
    log.stop()
    assert len(pipe.lines()) == events


@pytest.mark.parametrize("requests", [True, False])
def test_an_event_is_written_while_the_writer_runs(pipe: Pipe, requests: bool) -> None:
    log = log_to(pipe, requests=requests)
    log.start()
    try:
        for number in range(3):
            log.event(1.0, "ERROR", f"event {number}")
            assert select.select([pipe.reader], [], [], 10)[0]
            assert f"event {number}".encode() in os.read(pipe.reader, 4096)
    finally:
        log.stop()
        os.close(pipe.writer)
        os.close(pipe.reader)
