"""What only a file does: it outlives its process, other processes see it, and it may be locked, full or damaged."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from histories_at import LENGTH, TTL_S, Clock, did, in_sqlite, never, new_counts, running, until, until_told

from service.domain import Deadline
from service.errors import InputError
from service.state.history import Recent
from service.state.sqlite_store import SqliteStore
from service.state.stored import StoredHistory


async def test_what_was_appended_is_there_after_a_restart(tmp_path: Path) -> None:
    for item in (10, 20):
        async with in_sqlite(tmp_path / "h") as kept:
            await kept.history.append(did(1, item))
    async with in_sqlite(tmp_path / "h") as kept:
        assert await kept.items(1) == (10, 20)


async def test_another_worker_knows_at_once(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h") as one, in_sqlite(tmp_path / "h") as other:
        for item in range(3):
            await one.history.append(did(1, 2 * item))
            await other.history.append(did(1, 2 * item + 1))
            assert await one.items(1) == await other.items(1) == tuple(range(2 * item + 2))[-LENGTH:]


async def test_workers_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h", length=100) as one, in_sqlite(tmp_path / "h", length=100) as other:
        await asyncio.gather(
            *(kept.history.append(did(1, n)) for n, kept in enumerate([one, other] * 20)),
        )
        assert sorted(map(int, await one.items(1))) == list(range(40))


async def test_whoever_ends_finds_its_successor_among_the_files_users(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h") as ending:
        await ending.history.append(did(1, 10))
        async with in_sqlite(tmp_path / "h") as begun:  # it has read and written nothing yet
            await ending.history.close()
            # The last user's close would have taken the log in, with the file locked for everybody meanwhile.
            assert (tmp_path / "h-wal").exists()
            assert await begun.items(1) == (10,)


_APPEND_AND_TELL = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from histories_at import did, in_sqlite

async def main():
    async with in_sqlite(Path(sys.argv[1]), length=1000) as kept:
        for item in range(1000):
            await kept.history.append(did(1, item))
            print(item, flush=True)

asyncio.run(main())
"""


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    tests = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", _APPEND_AND_TELL, str(tmp_path / "h"), tests], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().splitlines()]

    async def kept_items() -> tuple[object, ...]:
        async with in_sqlite(tmp_path / "h", length=1000) as kept:
            return await kept.items(1)

    assert asyncio.run(kept_items())[: len(told)] == tuple(told)


async def test_a_locked_file_is_read_on_and_written_to_when_it_is_free(tmp_path: Path) -> None:
    counts, said = new_counts(), list[str]()
    store = SqliteStore(
        tmp_path / "h", length=LENGTH, ttl_s=TTL_S, clock=Clock(), busy_s=0.01,
        say=lambda level, message, **fields: said.append(message),
    )  # fmt: skip
    history = StoredHistory(store, counts, length=LENGTH)
    async with running(history):
        await history.append(did(1, 10))
        locker = sqlite3.connect(tmp_path / "h", isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        await history.append([*did(1, 20), *did(2, 30)])
        assert await history.recent_many([1, 2], never()) == [Recent((10, 20)), Recent((30,))]
        history.flush_counts()
        assert (counts.saved, counts.deferred, counts.unsaved, counts.lost) == (1, 2, 2, 0)
        locker.execute("ROLLBACK")
        locker.close()
        await until(lambda: counts.saved == 3)
        assert len(said) == 1
    async with in_sqlite(tmp_path / "h") as other:
        assert await other.items(1) == (10, 20)
        assert await other.items(2) == (30,)


async def test_a_file_damaged_under_way_degrades_answers(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h") as kept:
        await kept.history.append(did(1, 10))
        await kept.items(1)
        for file in (tmp_path / "h", tmp_path / "h-wal", tmp_path / "h-shm"):
            file.write_bytes(b"not a database" * 1000)
        await kept.history.append(did(1, 20))
        recent = await kept.history.recent(1, never())
        assert recent.items[-1:] == (20,)
    with pytest.raises(InputError, match="RECO_HISTORY_PATH"):
        SqliteStore(tmp_path / "h", length=LENGTH, ttl_s=TTL_S)


async def test_a_row_that_is_not_ours_is_a_disclosed_miss_and_is_replaced(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h") as kept:
        await kept.history.append(did(1, 10))
        for items in (b"{}", b"[1.5]", b"[true]", b"[[1]]", b"nonsense", b"\xff", "text"):
            with sqlite3.connect(tmp_path / "h") as writer:
                writer.execute("UPDATE history SET items = ?", (items,))
            writer.close()
            assert await kept.history.recent(1, never()) == Recent((), degraded=True)
        assert kept.counts.troubles["garbage"] == 7
        await kept.history.append(did(1, 20))
        assert await kept.items(1) == (20,)


async def test_a_read_that_has_no_time_left_is_not_begun(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h") as kept:
        await kept.history.append(did(1, 10))
        assert await kept.history.recent(1, Deadline(0.0)) == Recent((), degraded=True)
        assert kept.counts.troubles["late"] == 1


async def test_old_histories_leave_the_file(tmp_path: Path) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path / "h", length=LENGTH, ttl_s=TTL_S, clock=clock)
    async with running(StoredHistory(store, new_counts(), length=LENGTH)):
        await store.save(dict.fromkeys(range(50), (1,)))
    clock.now += TTL_S
    reader = sqlite3.connect(tmp_path / "h")
    assert reader.execute("SELECT count(*) FROM history").fetchone() == (50,)
    store = SqliteStore(tmp_path / "h", length=LENGTH, ttl_s=TTL_S, clock=clock)
    async with running(StoredHistory(store, new_counts(), length=LENGTH)):
        await store.save({99: (1,)})
        await until(lambda: reader.execute("SELECT user FROM history").fetchall() == [(b"99",)])
    reader.close()


@pytest.mark.parametrize("fault", ["no database", "a folder", "in a file"])
def test_a_path_that_cannot_be_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "h"
    if fault == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"something else entirely, and long enough to be looked at" * 100)
    if fault == "in a file":
        path = path / "below"
    with pytest.raises(InputError, match=r"RECO_HISTORY_PATH: .*h"):
        SqliteStore(path, length=LENGTH, ttl_s=TTL_S)


async def test_told_again_once_the_file_can_be_opened(tmp_path: Path) -> None:
    async with in_sqlite(tmp_path / "h") as kept:
        await kept.history.append(did(1, 10))
        with sqlite3.connect(tmp_path / "h", isolation_level=None) as writer:
            writer.execute("ALTER TABLE history RENAME TO away")
        assert (await kept.history.recent(1, never())).degraded
        writer.execute("ALTER TABLE away RENAME TO history")
        writer.close()
        assert await until_told(kept.history, 1) == (10,)
