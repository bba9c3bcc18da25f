"""Whatever order of writes, full disks, rotations and crashes: what was synced is read back, whole and in order."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from events_at import FaultyFiles, feedback
from hypothesis import given
from hypothesis import strategies as st

from service.events.frames import frame
from service.events.keys import key_of
from service.events.reading import read_records, verify
from service.events.writer import SegmentWriter

PLACES = st.floats(0, 1)
WRITES = st.tuples(st.sampled_from(["synced", "unsynced"]), st.integers(1, 4), st.none())
FULL = st.tuples(st.just("full"), st.integers(0, 600), st.none())
CRASHES = st.tuples(st.just("crash"), PLACES, st.none() | st.tuples(PLACES, PLACES))
PLAIN_CRASHES = st.tuples(st.just("crash"), PLACES, st.none())


@dataclass
class Disk:
    """A series on a disk that keeps what was synced, and of the rest whatever a crash leaves."""

    series: Path
    segment_bytes: int
    files: FaultyFiles = field(default_factory=FaultyFiles)
    written: int = 0
    acknowledged: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    synced: dict[Path, int] = field(default_factory=dict)

    def open(self) -> None:
        self.writer = SegmentWriter(self.series, segment_bytes=self.segment_bytes, files=self.files)
        self.writer.open()
        self._note()

    def write(self, count: int, *, sync: bool) -> None:
        if self.writer.wants_rotation():
            with contextlib.suppress(OSError):
                self.writer.rotate()
                self._settle()
        names = [f"e-{self.written + number}" for number in range(count)]
        self.written += count
        try:
            self.writer.write([frame(feedback(name).payload()) for name in names])
        except OSError:
            self.files.room = None
            return  # nothing of it is acknowledged; its beginning may be there
        self.pending += names
        if sync:
            self.writer.sync()
            self.writer.keys.extend(map(key_of, self.pending))
            self._settle()

    def _settle(self) -> None:
        self.acknowledged += self.pending
        self.pending = []
        self._note()

    def _note(self) -> None:
        for path in self.series.glob("*.log"):
            self.synced[path] = path.stat().st_size

    def crash(self, place: float, hole: tuple[float, float] | None) -> None:
        """Lose the end of what was not synced, from `place` on; `hole`: and what lies between, zeroed."""
        os.close(self.writer._descriptor)
        self.files.room = None
        for path, safe in self.synced.items():
            size = path.stat().st_size
            with path.open("r+b") as file:
                if hole is not None:
                    first, last = sorted(safe + int(share * (size - safe)) for share in hole)
                    file.seek(first)
                    file.write(bytes(last - first))
                file.truncate(safe + int(place * (size - safe)))
        self.pending = []
        self.open()

    def play(self, steps: list[tuple[str, float, tuple[float, float] | None]]) -> None:
        self.open()
        for what, amount, hole in steps:
            if what == "crash":
                self.crash(amount, hole)
            elif what == "full":
                self.files.room = int(amount)
            else:
                self.write(int(amount), sync=what == "synced")
        self.writer.close()


@given(st.lists(WRITES | FULL | PLAIN_CRASHES, max_size=14), st.integers(1, 900))
def test_what_was_synced_survives_and_nothing_is_corrupt(
    steps: list[tuple[str, float, None]], segment_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        disk = Disk(Path(name) / "worker-0", segment_bytes)
        disk.series.mkdir()
        disk.play([*steps])
        found = [record["event_id"] for record in read_records(Path(name))]
        summary = verify(Path(name))
    assert (summary.corrupt, summary.torn, summary.duplicates) == ([], [], 0)
    assert found == sorted(found, key=lambda one: int(one[2:]))
    assert set(disk.acknowledged) <= set(found)


@given(st.lists(WRITES | FULL | CRASHES, max_size=14), st.integers(1, 900))
def test_holes_in_what_was_not_synced_cost_nothing_that_was(
    steps: list[tuple[str, float, tuple[float, float] | None]], segment_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        disk = Disk(Path(name) / "worker-0", segment_bytes)
        disk.series.mkdir()
        disk.play(steps)
        found = [record["event_id"] for record in read_records(Path(name))]
        summary = verify(Path(name))
    assert set(disk.acknowledged) <= set(found)
    assert len(found) == len(set(found))
    assert summary.torn == []
