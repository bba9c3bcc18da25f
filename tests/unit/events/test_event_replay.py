"""What people did lately is read back from the log's end, bounded, whoever wrote it and whatever is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from events_at import feedback, impression, logging_to

from service.errors import InputError
from service.events.replay import Done, lately_done
from service.events.series import segments_in, series_in

AT = 1_700_000_000_500
"""When the events of these tests were received."""


def items(events: Path, *, since_ms: int = 0, most_bytes: int = 1 << 20) -> list[object]:
    return [done.item_id for done in lately_done(events, since_ms=since_ms, most_bytes=most_bytes)]


async def test_what_was_done_comes_back_in_its_order_from_all_series(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as one, logging_to(tmp_path, slot=1) as other:
        for number in range(6):
            log = one if number % 2 else other
            await log.append([feedback(f"e{number}", item_id=number, received_ms=AT + number)])
    assert items(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert next(iter(lately_done(tmp_path, since_ms=0))) == Done(AT, "view", 100, 0)


async def test_what_was_only_shown_was_not_done(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        log.emit(impression("r"))
        kinds = ["impression", "view", "click", "purchase", "rating", "last"]
        await log.append([feedback(kind, type=kind, item_id=kind) for kind in kinds])
    assert items(tmp_path) == kinds[1:]


async def test_what_is_too_old_is_left_out(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        await log.append([feedback(f"e{n}", item_id=n, received_ms=AT + n) for n in range(4)])
    assert items(tmp_path, since_ms=AT + 2) == [2, 3]


@pytest.mark.parametrize("most_bytes", [0, 1, 500, 3_000, 1 << 20])
async def test_no_more_than_the_logs_end_is_read(tmp_path: Path, most_bytes: int) -> None:
    async with logging_to(tmp_path, segment_bytes=2_000) as log:
        for number in range(60):
            await log.append([feedback(f"e{number}", item_id=number, received_ms=AT + number)])
    sizes = [path.stat().st_size for path in segments_in(series_in(tmp_path)[0])]
    assert len(sizes) > 3
    found = items(tmp_path, most_bytes=most_bytes)
    assert found == list(range(60))[60 - len(found) :]
    record = sum(sizes) / 60
    assert len(found) <= most_bytes / record + 1
    assert len(found) >= min(60, most_bytes // (record + 8) - 1)


async def test_damage_is_passed_over(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        for number in range(10):
            await log.append([feedback(f"e{number}", item_id=number, received_ms=AT + number)])
    (path,) = segments_in(series_in(tmp_path)[0])
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw + b"torn")
    assert len(items(tmp_path)) == 9


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        items(tmp_path / "nowhere")
