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
from service.events.keys import as_keys, key_of, keys_of
from service.events.seen import SeenIds
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


@given(st.lists(st.lists(st.integers(1, 40), max_size=30), max_size=8), st.integers(1, 64))
def test_loading_many_is_as_adding_each(groups: list[list[int]], spread: int) -> None:
    """Multiples of `spread` share places in the table, so that keys have to move on."""
    one_by_one, at_once = SeenIds(256), SeenIds(256)
    for group in groups:
        keys = [key * spread for key in group]
        at_once.load(as_keys(keys))
        for key in keys:
            one_by_one.add(key)
    everything = [key * spread for key in range(1, 41)]
    assert [key in at_once for key in everything] == [key in one_by_one for key in everything]
    assert at_once._count == one_by_one._count


def test_loading_more_than_a_generation_remembers_the_last() -> None:
    seen = SeenIds(100)
    seen.load(as_keys(range(1, 1001)))
    assert all(key in seen for key in range(901, 1001))
    assert not any(key in seen for key in range(1, 801))


async def test_a_closed_segments_keys_are_beside_it_and_are_not_needed(tmp_path: Path) -> None:
    async with logging_to(tmp_path, segment_bytes=1) as log:
        for name in "abcd":
            await log.append([feedback(name)])
        first, second, third, _ = segments_in(log.series)
    beside = [path.with_suffix(".keys") for path in (first, second, third)]
    assert [keys_of(path).tolist() for path in (first, second, third)] == [[key_of(name)] for name in "abc"]
    beside[0].unlink()
    beside[1].write_bytes(b"\x01" + beside[1].read_bytes()[1:])
    beside[2].write_bytes(beside[2].read_bytes()[:-3])
    assert [keys_of(path).tolist() for path in (first, second, third)] == [[key_of(name)] for name in "abc"]
    async with logging_to(tmp_path) as log:
        assert (await log.append([feedback(name) for name in "abcde"])).duplicates == 4


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
    for path in segments_in(series):
        path.with_suffix(".keys").touch()
    assert expire(series, keep_bytes=keep_bytes, keep_days=keep_days) == 4 - len(left)
    assert numbers(series) == left
    assert sorted(int(path.stem) for path in series.glob("*.keys")) == left


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
