"""Series, what is remembered of them, and what becomes of old ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from events_at import feedback, ids_in, logging_to
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InputError
from service.events.seen import SeenIds, key_of
from service.events.series import abandoned, expire, segments_in, series_in, take_series

DAY_S = 86_400


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 8))
def test_the_last_generation_is_remembered_and_never_more_than_two(keys: list[int], generation: int) -> None:
    seen = SeenIds(generation)
    order: list[int] = []
    for key in keys:
        if key not in seen:
            order.append(key)
        seen.add(key)
        assert (
            set(order[-generation:])
            <= {k for k in range(1, 51) if k in seen}
            <= set(order[-2 * generation :])
        )


@given(st.sets(st.integers(1, 2**64 - 1), max_size=60))
def test_keys_that_share_places_are_told_apart(keys: set[int]) -> None:
    seen = SeenIds(64)
    for key in keys:
        seen.add(key)
    assert all(key in seen for key in keys)
    assert not any(key in seen for key in range(1, 300) if key not in keys)


def test_keys_are_64_bits_and_never_0() -> None:
    keys = {key_of(f"event-{number}") for number in range(10_000)}
    assert len(keys) == 10_000
    assert all(0 < key < 2**64 for key in keys)


def make_segments(series: Path, sizes: list[int], ages_days: list[float]) -> None:
    series.mkdir(parents=True)
    for number, (size, age) in enumerate(zip(sizes, ages_days, strict=True), start=1):
        path = series / f"{number:012d}.log"
        path.write_bytes(bytes(size))
        written = time.time() - age * DAY_S
        os.utime(path, (written, written))


def numbers(series: Path) -> list[int]:
    return [int(path.stem) for path in segments_in(series)]


@pytest.mark.parametrize(
    ("keep_bytes", "keep_days", "left"),
    [
        (0, 0, [1, 2, 3, 4]),
        (1000, 0, [1, 2, 3, 4]),
        (400, 0, [1, 2, 3, 4]),
        (399, 0, [2, 3, 4]),
        (150, 0, [4]),
        (1, 0, [4]),
        (0, 5.5, [3, 4]),
        (0, 0.1, [4]),
        (399, 30, [2, 3, 4]),
    ],
)
def test_the_oldest_segments_go_and_the_newest_stays(
    tmp_path: Path, keep_bytes: int, keep_days: float, left: list[int]
) -> None:
    series = tmp_path / "worker-0"
    make_segments(series, [100] * 4, [9, 6, 3, 2])
    assert expire(series, keep_bytes=keep_bytes, keep_days=keep_days) == 4 - len(left)
    assert numbers(series) == left


async def test_a_running_log_removes_old_segments_of_its_own_and_of_abandoned_series(tmp_path: Path) -> None:
    make_segments(tmp_path / "worker-7", [100] * 3, [9, 8, 7])
    make_segments(tmp_path / "worker-8", [100] * 3, [9, 8, 7])
    held = take_series(tmp_path, 8)
    make_segments(tmp_path / "worker-0", [100] * 2, [9, 9])
    async with logging_to(tmp_path, keep_days=1.0) as log:
        await log.append([feedback("a")])
    assert numbers(tmp_path / "worker-0") == [2]
    assert numbers(tmp_path / "worker-7") == [3]
    assert numbers(tmp_path / "worker-8") == [1, 2, 3]
    held.release()


def test_a_series_in_use_is_not_abandoned(tmp_path: Path) -> None:
    held = take_series(tmp_path, 0)
    take_series(tmp_path, 1).release()
    with abandoned(tmp_path) as found:
        assert [path.name for path in found] == ["worker-1"]
        assert take_series(tmp_path, 0).folder.name == "worker-2"
    held.release()


def test_series_are_found_by_number_and_nothing_else_is_one(tmp_path: Path) -> None:
    for name in ("worker-10", "worker-2", "worker-x", "notes", "worker--1"):
        (tmp_path / name).mkdir()
    assert [path.name for path in series_in(tmp_path)] == ["worker-2", "worker-10"]
    (tmp_path / "worker-2" / "000000000001.log.bak").touch()
    assert segments_in(tmp_path / "worker-2") == []
    with pytest.raises(InputError, match="there is no folder"):
        series_in(tmp_path / "nowhere")


async def test_a_segment_a_day_old_is_closed(tmp_path: Path) -> None:
    async with logging_to(tmp_path) as log:
        await log.append([feedback("a")])
        (segment,) = segments_in(log.series)
    os.utime(segment, (time.time() - 2 * DAY_S,) * 2)
    async with logging_to(tmp_path) as log:
        await log.append([feedback("b")])
        assert len(segments_in(log.series)) == 2
    assert ids_in(tmp_path) == ["a", "b"]
