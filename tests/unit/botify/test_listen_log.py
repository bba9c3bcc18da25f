"""The data log: whole lines in botify's form, rotated once however many write, and none lost that the disk takes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.errors import InputError
from service.events import listen_log
from service.events.listen_log import Datum, ListenLog

WRITER = """
import sys
from pathlib import Path
from service.events.listen_log import Datum, ListenLog
log = ListenLog(Path(sys.argv[1]), max_bytes=20_000, backups=1000)
log.start()
for number in range(int(sys.argv[3])):
    log.log(Datum("next", 1, int(sys.argv[2]), number, 0.5, 0.001, 3, {"AA": "C"}))
log.stop()
assert log.dropped == 0
"""


def datum(number: int = 0, **changes: Any) -> Datum:
    return Datum("next", 1_700_000_000_000, 7, number, 0.25, 0.0012, 12, {"AA": "C", "B": "T1"})._replace(
        **changes
    )


def written(path: Path, *data: Datum, **options: Any) -> ListenLog:
    log = ListenLog(path, **options)
    log.start()
    for one in data:
        log.log(one)
    log.stop()
    return log


def lines(folder: Path) -> list[dict[str, Any]]:
    files = [path for path in folder.iterdir() if not path.name.endswith(".lock")]
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def test_a_line_is_as_botify_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "log" / "data.json"
    written(path, datum(12), datum(message="last", recommendation=None, experiments={}))
    assert path.read_text() == (
        '{"message":"next","timestamp":1700000000000,"user":7,"track":12,"time":0.25,"latency":0.0012,'
        '"recommendation":12,"experiments":{"AA":"C","B":"T1"}}\n'
        '{"message":"last","timestamp":1700000000000,"user":7,"track":0,"time":0.25,"latency":0.0012,'
        '"recommendation":null,"experiments":{}}\n'
    )


def test_the_models_room_reads_it_back(tmp_path: Path) -> None:
    from models.data.read import read_dataset

    (tmp_path / "tracks.json").write_text('{"track": 3, "artist": "A", "title": "T"}\n')
    written(tmp_path / "data.json", datum(3), datum(3, user=8))
    dataset = read_dataset(tmp_path)
    assert (len(dataset), dataset.n_users, dataset.signals["time"].tolist()) == (2, 2, [0.25, 0.25])


def test_a_second_start_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    for number in range(3):
        written(tmp_path / "data.json", datum(number))
    assert [line["track"] for line in lines(tmp_path)] == [0, 1, 2]


def test_rotation_keeps_the_newest_files_within_their_size(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    written(path, *map(datum, range(1000)), max_bytes=5000, backups=3)
    names = sorted(file.name for file in tmp_path.iterdir() if not file.name.endswith(".lock"))
    assert names == ["data.json", "data.json.1", "data.json.2", "data.json.3"]
    tracks: list[int] = []
    for name in reversed(names):
        text = (tmp_path / name).read_bytes()
        assert len(text) < 5000
        tracks += [json.loads(line)["track"] for line in text.splitlines()]
    assert tracks == list(range(tracks[0], 1000))
    assert len(tracks) > 75


def test_no_line_is_lost_on_stop(tmp_path: Path) -> None:
    log = written(tmp_path / "data.json", *map(datum, range(20_000)))
    assert (log.written, log.dropped) == (20_000, 0)
    assert [line["track"] for line in lines(tmp_path)] == list(range(20_000))


def test_processes_that_share_a_file_neither_mix_nor_lose_lines(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "data.json", str(user), "3000"])
        for user in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = lines(tmp_path)
    assert Counter(line["user"] for line in found) == {0: 3000, 1: 3000, 2: 3000}
    assert len({(line["user"], line["track"]) for line in found}) == 9000
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) > 20
    assert max(sizes) < 20_000


def test_a_full_disk_delays_lines_and_tears_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes half a chunk, then refuses twice, then has room again."""
    path, refusals, said = tmp_path / "data.json", [0], []
    write = os.write

    def fills_up(descriptor: int, data: memoryview) -> int:
        if refusals[0] < 4:
            refusals[0] += 1
            if refusals[0] % 2:
                return write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fills_up)
    log = ListenLog(path, say=lambda level, message, **_: said.append(level))
    log.start()
    for number in range(100):
        log.log(datum(number))
    while log.written < 100:
        os.sched_yield()
    log.stop()
    assert [line["track"] for line in lines(tmp_path)] == list(range(100))
    assert said == ["ERROR"]
    assert log.dropped == 0


def test_a_queue_that_nobody_empties_is_bounded_and_says_what_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen_log, "CAPACITY", 10)
    log = ListenLog(tmp_path / "data.json")
    for number in range(25):
        log.log(datum(number))
    log.start()
    log.stop()
    assert [line["track"] for line in lines(tmp_path)] == list(range(10))
    assert log.take_dropped() == 15
    assert log.take_dropped() == 0


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="RECO_BOTIFY_LOG"):
        ListenLog(tmp_path / "file" / "data.json")
