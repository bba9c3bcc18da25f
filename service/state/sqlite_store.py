"""Histories in a SQLite file on this host's disk: shared by its workers, and there after a restart.

One thread a process writes, in batches; SQLite's write-ahead log lets readers pass writers by. A read runs on the
event loop: a lookup by primary key in pages that are in memory takes about 12 µs, a tenth of what handing it to a
thread and back costs (tests/benchmarks/bench_state.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from service.domain import Clock, Deadline, UserId
from service.errors import InputError
from service.state.history import ByUser, Items, joined
from service.state.stored import StoreTrouble, items_of

Say = Callable[..., None]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS history
    (user BLOB PRIMARY KEY, items BLOB NOT NULL, appended_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS history_by_age ON history (appended_at);
"""
_READ = "SELECT items FROM history WHERE user = ? AND appended_at > ?"
_WRITE = "REPLACE INTO history (user, items, appended_at) VALUES (?, ?, ?)"
_FORGET = """
DELETE FROM history WHERE user IN (SELECT user FROM history WHERE appended_at <= ? ORDER BY appended_at LIMIT ?)
"""
_FORGET_EVERY_S = 10.0
_FORGET_AT_ONCE = 2000
BUSY_S = 2.0
"""How long the writer waits for another worker's batch."""
_MOST_TOGETHER = 256
_REOPEN_S = 0.5


class _Save:
    """Histories to append, and who waits for it."""

    __slots__ = ("done", "histories", "loop")

    def __init__(self, histories: ByUser) -> None:
        self.histories = histories
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def tell(self, error: StoreTrouble | None) -> None:
        """Pass the outcome to the loop."""
        with contextlib.suppress(RuntimeError):  # a loop that was closed meanwhile
            self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: StoreTrouble | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


def prepare(path: Path) -> None:
    """Make the file, or check that it is one of ours. Raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_connect(path, busy_s=BUSY_S)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            connection.execute(_READ, (b"", 0.0)).fetchone()
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"RECO_HISTORY_PATH: cannot keep histories in {path}: {error}; "
            "if the file is damaged, remove it: what it held is in the event log too"
        ) from None


class SqliteStore:
    """The file. Raises InputError where it can't be made."""

    def __init__(
        self,
        path: Path,
        *,
        length: int,
        ttl_s: float,
        clock: Clock = time.time,
        busy_s: float = BUSY_S,
        say: Say | None = None,
    ) -> None:
        """`clock`: Unix time in seconds, which outlives the process. `busy_s`: how long to wait for other writers."""
        self._path, self._length, self._ttl_s, self._clock = path, length, ttl_s, clock
        self._busy_s = busy_s
        self._say = say or (lambda *_, **__: None)
        prepare(path)
        self._reader: sqlite3.Connection | None = None
        self._reopen_at = 0.0
        self._saves: queue.SimpleQueue[_Save | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failing = False

    async def start(self) -> None:
        """Begin."""
        with contextlib.suppress(sqlite3.Error):  # it is opened again when somebody asks
            self._reader = _open_reader(self._path, busy_s=self._busy_s)
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    async def read(self, user_ids: Sequence[UserId], deadline: Deadline) -> list[Items | None]:
        """Histories; never suspends, and waits for no lock. Raises StoreTrouble."""
        oldest = self._clock() - self._ttl_s
        found: list[Items | None] = []
        try:
            reader = self._reader or self._reopened()
            for user_id in user_ids:
                if deadline.remaining() <= deadline.reserve:
                    raise StoreTrouble("late")
                row = reader.execute(_READ, (orjson.dumps(user_id), oldest)).fetchone()
                found.append(_items(row[0]) if row is not None else ())
        except sqlite3.Error:
            self._close_reader()
            raise StoreTrouble("away") from None
        return found

    async def save(self, histories: ByUser) -> None:
        """Append; returns once it is committed. Raises StoreTrouble."""
        if self._thread is None:
            raise StoreTrouble("away")
        save = _Save(histories)
        self._saves.put(save)
        await save.done

    async def close(self) -> None:
        """Write what waits, and end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._saves.put(None)
            await asyncio.to_thread(thread.join)
        self._close_reader()

    def _reopened(self) -> sqlite3.Connection:
        """A new reader, tried for twice a second. Raises sqlite3.Error."""
        now = time.monotonic()
        if now < self._reopen_at:
            raise sqlite3.OperationalError("waiting to open the file again")
        self._reopen_at = now + _REOPEN_S
        self._reader = _open_reader(self._path)
        return self._reader

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        forget_at = 0.0
        going_on = True
        while going_on:
            saves, going_on = self._gather()
            forget = time.monotonic() >= forget_at
            if not saves and not forget:
                continue
            try:
                if connection is None:
                    connection = _connect(self._path, busy_s=self._busy_s)
                    connection.execute("PRAGMA synchronous = NORMAL")
                self._commit(connection, saves, forget=forget)
            except Exception as error:  # a full disk, a damaged file: who waits is told, and tries again
                if connection is not None:
                    connection.close()
                connection = None
                self._tell_once(error, saves)
                trouble: StoreTrouble | None = StoreTrouble("away")
            else:
                self._failing, trouble = False, None
            if forget:
                forget_at = time.monotonic() + _FORGET_EVERY_S
            for save in saves:
                save.tell(trouble)
        if connection is not None:
            connection.close()

    def _gather(self) -> tuple[list[_Save], bool]:
        """Wait a while for a save, then take all that have come; False once the store is to close."""
        gathered: list[_Save] = []
        try:
            save = self._saves.get(timeout=_FORGET_EVERY_S)
            while save is not None:
                gathered.append(save)
                if len(gathered) >= _MOST_TOGETHER:
                    return gathered, True
                save = self._saves.get_nowait()
        except queue.Empty:
            return gathered, True
        return gathered, False

    def _commit(self, connection: sqlite3.Connection, saves: Sequence[_Save], *, forget: bool) -> None:
        now = self._clock()
        oldest = now - self._ttl_s
        connection.execute("BEGIN IMMEDIATE")
        for save in saves:
            for user_id, items in save.histories.items():
                user = orjson.dumps(user_id)
                row = connection.execute(_READ, (user, oldest)).fetchone()
                older = (_items(row[0]) or ()) if row is not None else ()
                connection.execute(_WRITE, (user, orjson.dumps(joined(older, items, self._length)), now))
        if forget:
            connection.execute(_FORGET, (oldest, _FORGET_AT_ONCE))
        connection.execute("COMMIT")

    def _tell_once(self, error: Exception, saves: Sequence[_Save]) -> None:
        if not self._failing and saves:
            self._failing = True
            with contextlib.suppress(RuntimeError):
                saves[0].loop.call_soon_threadsafe(
                    lambda: self._say("ERROR", "histories cannot be saved; trying on", error=error)
                )


def _connect(path: Path, *, busy_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=busy_s, isolation_level=None)


def _open_reader(path: Path, *, busy_s: float = 0.0) -> sqlite3.Connection:
    """Open for reads that wait for no lock, but for the first, which waits `busy_s` seconds.

    From its first read on a connection counts among the file's users. One that closes as the last of them locks the
    others out while it takes the write-ahead log in: a worker that ends must find its successor among them.
    """
    connection = _connect(path, busy_s=busy_s)
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute(_READ, (b"", 0.0)).fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _items(raw: object) -> Items | None:
    try:
        return items_of(orjson.loads(raw)) if isinstance(raw, bytes) else None
    except ValueError:
        return None
