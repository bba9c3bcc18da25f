"""The event log of one process: feedback is acknowledged once it is on the disk; impressions are written when there
is time and dropped, counted, when there is not.

The event loop hands batches to one thread and awaits a future. While the disk is busy with one group the next one
gathers, so every batch waits for at most two syncs and a thousand batches share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import EventsUnavailable, InputError
from service.events.files import Files
from service.events.frames import HEAD_BYTES, frame
from service.events.keys import as_keys, key_of, recent_keys
from service.events.metrics import BROKEN, FULL, SLATE, WRITING, EventCounts
from service.events.schema import Feedback, Impression
from service.events.seen import GENERATION, SeenIds
from service.events.series import SeriesLock, abandoned, expire, segments_in, take_series
from service.events.turns import TURN, in_turns
from service.events.writer import NO_SPACE, InDoubt, SegmentWriter

if TYPE_CHECKING:
    from service.events.bus import EventBus

MAX_WAITING = 20_000
"""Feedback events that may wait to be written."""
MAX_IMPRESSIONS = 8_192
"""Impressions that may wait to be written."""
_GROUP_EVENTS = 4_096
_GROUP_IMPRESSIONS, _IMPRESSIONS_BESIDE = 1_024, 128
"""Impressions written at once; and beside feedback, whose senders wait."""
_PERIOD_S = 0.05
_CLOSE_S = 5.0
_EXPIRE_EVERY_S = 60.0
_BROKEN = "the event log is broken until the service restarts"
_FULL = "there is no space for events"
_UNFIT = "an event could not be encoded"

Say = Callable[..., None]
"""`say(level, message, **fields)`, called on the event loop."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of a batch that is on the disk."""

    accepted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How the log is kept. 0 for `keep_bytes` or `keep_days`: for ever."""

    segment_bytes: int = 16 << 20
    keep_bytes: int = 0
    keep_days: float = 0.0
    wait_s: float = 2.0
    """How long a batch may wait for the disk before its sender is told to come again."""
    remembered: int = GENERATION


@dataclass(frozen=True, slots=True)
class _Batch:
    events: Sequence[Feedback]
    outcome: asyncio.Future[AppendResult | str]


class EventLog:
    """Call from the event loop only."""

    def __init__(
        self,
        events: Path,
        counts: EventCounts,
        *,
        slot: int = 0,
        options: LogOptions | None = None,
        files: Files | None = None,
        say: Say | None = None,
        bus: EventBus | None = None,
    ) -> None:
        """`events`: the folder of all series. `slot`: which of them is tried first. `bus`: told of what was written."""
        self.options = options or LogOptions()
        self._events, self._slot, self._counts = events, slot, counts
        self._files = files or Files()
        self._lock: SeriesLock | None = None
        self._say = say or (lambda *_, **__: None)
        self._bus = bus
        self._seen = SeenIds(self.options.remembered)
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._impressions: deque[Impression] = deque()
        self._waiting = 0
        self._closing = False
        self._expire_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def series(self) -> Path:
        """Folder that this log writes to, once it has started."""
        assert self._lock is not None
        return self._lock.folder

    def start(self) -> None:
        """Take a series and begin. Raises InputError where none can be written to.

        What it holds already is read in the background; a batch that comes earlier waits for that.
        """
        self._lock = take_series(self._events, self._slot)
        self._writer = SegmentWriter(
            self._lock.folder, segment_bytes=self.options.segment_bytes, files=self._files
        )
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()
        if self._bus is not None:
            self._bus.start()

    async def append(self, events: Sequence[Feedback]) -> AppendResult:
        """Write feedback; returns once it is on the disk. Raises EventsUnavailable: it may or may not be there then.

        Events whose id is in the log already, or earlier in the batch, are counted and not written again.
        """
        if self._closing or self._loop is None:
            raise EventsUnavailable("the service is stopping")
        if self._counts.state == BROKEN:
            raise EventsUnavailable(_BROKEN)
        if self._waiting + len(events) > MAX_WAITING:
            raise EventsUnavailable("too many events wait to be written")
        self._waiting += len(events)
        self._counts.depth = self._waiting + len(self._impressions)
        batch = _Batch(events, self._loop.create_future())
        self._batches.put(batch)
        try:
            outcome = await asyncio.wait_for(asyncio.shield(batch.outcome), self.options.wait_s)
        except TimeoutError:
            raise EventsUnavailable("the disk is too slow") from None
        if isinstance(outcome, str):
            raise EventsUnavailable(outcome)
        return outcome

    def emit(self, impression: Impression) -> None:
        """Leave an impression to be written. Never blocks; counted as dropped when too many wait."""
        if len(self._impressions) < MAX_IMPRESSIONS:
            self._impressions.append(impression)
        else:
            self._counts.dropped_by_emit += 1

    def flush_counts(self) -> None:
        """Hand what was counted to the metrics."""
        self._counts.depth = self._waiting + len(self._impressions)
        self._counts.flush()

    async def close(self) -> None:
        """Write what waits, and end; gives up on a disk that hangs. Does nothing the second time."""
        thread = self._thread
        if self._closing or thread is None or self._lock is None:
            return
        self._closing = True
        self._batches.put(None)
        await asyncio.to_thread(thread.join, self.options.wait_s + _CLOSE_S)
        if not thread.is_alive():
            self._lock.release()
        if self._bus is not None:
            await asyncio.sleep(0)  # what the thread wrote last is on its way to the bus
            await self._bus.close()
        # The next process that uses this one's metric files says how its own log is.
        self._counts.state = WRITING
        self.flush_counts()

    # -- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._open()
        going_on = True
        while going_on:
            batches, going_on = self._gather()
            self._work(
                batches, self._take_impressions(_IMPRESSIONS_BESIDE if batches else _GROUP_IMPRESSIONS)
            )
            self._expire()
        while self._impressions:
            self._work([], self._take_impressions(_GROUP_IMPRESSIONS))
        try:
            self._writer.close()
        except InDoubt as error:
            self._break(error)

    def _open(self) -> None:
        try:
            found = self._writer.open()
            closed = segments_in(self.series)[:-1]
            for keys in (*recent_keys(closed, self.options.remembered), as_keys(self._writer.keys)):
                self._seen.load(keys)
        except Exception as error:
            self._break(error)
            return
        if found.cut_bytes:
            self._tell("WARNING", "the event log's torn end was removed", bytes=found.cut_bytes)
        if found.damaged:
            self._tell("ERROR", "the event log is damaged: see 'reco events verify'", segment=found.damaged)

    def _gather(self) -> tuple[list[_Batch], bool]:
        """Wait a while for a batch, then take all that have come; False once the log is to close."""
        gathered: list[_Batch] = []
        count = 0
        try:
            batch = self._batches.get(timeout=_PERIOD_S)
            while batch is not None:
                gathered.append(batch)
                count += len(batch.events)
                if count >= _GROUP_EVENTS:
                    return gathered, True
                batch = self._batches.get_nowait()
        except queue.Empty:
            return gathered, True
        return gathered, False

    def _take_impressions(self, most: int) -> list[Impression]:
        return [self._impressions.popleft() for _ in range(min(len(self._impressions), most))]

    def _work(self, batches: list[_Batch], impressions: list[Impression]) -> None:
        """Write one group, sync it if anybody waits for it, and tell them."""
        if not batches and not impressions:
            return
        counts = self._counts
        failure = _BROKEN
        try:
            if counts.state != BROKEN:
                self._commit(batches, impressions)
                return
        except OSError as error:
            if error.errno in NO_SPACE:
                self._set_state(FULL, error)
                failure = _FULL
            else:
                self._break(error)
        except Exception as error:  # InDoubt, or a fault of our own: nothing may be acknowledged after either
            self._break(error)
        counts.dropped_by_writer += len(impressions)
        for batch in batches:
            counts.failed(event.type for event in batch.events)
        self._resolve((batch, failure) for batch in batches)

    def _commit(self, batches: list[_Batch], impressions: list[Impression]) -> None:
        began = time.perf_counter()
        counts = self._counts
        fresh: set[int] = set()
        frames: list[bytes] = []
        news = [self._encode(batch.events, fresh, frames) for batch in batches]
        unfit = self._encode_impressions(impressions, frames)
        if frames:
            if self._writer.wants_rotation():
                self._writer.rotate()
            self._writer.write(frames)
        if fresh:
            self._writer.sync()
        for key in fresh:
            self._seen.add(key)
        self._writer.keys.extend(fresh)
        self._set_state(WRITING, None)
        if frames and (bus := self._bus) is not None:
            payloads = [one[HEAD_BYTES:] for one in frames]
            self._on_loop(lambda: bus.offer(payloads))
        if batches:
            counts.committed(time.perf_counter() - began)
        counts.count(SLATE, "accepted", len(impressions) - unfit)
        counts.dropped_by_writer += unfit
        self._resolve((batch, self._account(batch, new)) for batch, new in zip(batches, news, strict=True))

    def _account(self, batch: _Batch, new: list[bool] | None) -> AppendResult | str:
        if new is None:
            self._counts.failed(event.type for event in batch.events)
            return _UNFIT
        for event, is_new in zip(batch.events, new, strict=True):
            self._counts.count(event.type, "accepted" if is_new else "duplicate")
        return AppendResult(sum(new), len(new) - sum(new))

    def _encode(self, events: Sequence[Feedback], fresh: set[int], frames: list[bytes]) -> list[bool] | None:
        """Add what is new to `fresh` and `frames`; returns which were, None (and adds nothing) if one has no bytes."""
        new: list[bool] = []
        own: dict[int, bytes] = {}
        try:
            for event in in_turns(events):
                key = key_of(event.event_id)
                is_new = key not in own and key not in fresh and key not in self._seen
                new.append(is_new)
                if is_new:
                    own[key] = frame(event.payload())
        except (TypeError, ValueError) as error:
            self._tell("ERROR", _UNFIT, error=error)
            return None
        fresh.update(own)
        frames.extend(own.values())
        return new

    def _encode_impressions(self, impressions: Sequence[Impression], frames: list[bytes]) -> int:
        """Add their frames; returns how many could not be encoded."""
        unfit = 0
        # With many waiting the turns get longer: a loop that is never idle would leave too few of them.
        for impression in in_turns(impressions, TURN + len(self._impressions) // 32):
            try:
                frames.append(frame(impression.payload()))
            except (TypeError, ValueError) as error:
                unfit += 1
                self._tell("ERROR", "an impression could not be encoded", error=error)
        return unfit

    def _expire(self) -> None:
        options, now = self.options, time.monotonic()
        if not (options.keep_bytes or options.keep_days) or now < self._expire_at:
            return
        self._expire_at = now + _EXPIRE_EVERY_S
        try:
            with abandoned(self._events) as others:
                removed = sum(
                    expire(series, keep_bytes=options.keep_bytes, keep_days=options.keep_days)
                    for series in (self.series, *others)
                )
        except (OSError, InputError) as error:
            self._tell("ERROR", "old events could not be removed", error=error)
            return
        if removed:
            self._tell("INFO", "old events were removed", segments=removed)

    # -- from the thread to the loop ------------------------------------------------------------------------

    def _set_state(self, state: int, error: OSError | None) -> None:
        if state == self._counts.state:
            return
        self._counts.state = state
        if error is not None:
            self._tell("ERROR", "there is no space for events; trying on", reason=error.strerror)
        else:
            self._tell("INFO", "events are written again")

    def _break(self, error: Exception) -> None:
        if self._counts.state != BROKEN:
            self._counts.state = BROKEN
            self._tell("ERROR", _BROKEN, error=error)

    def _tell(self, level: str, message: str, **fields: Any) -> None:
        self._on_loop(lambda: self._say(level, message, series=self.series.name, **fields))

    def _resolve(self, outcomes: Iterable[tuple[_Batch, AppendResult | str]]) -> None:
        resolved = list(outcomes)

        def tell() -> None:
            for batch, outcome in resolved:
                self._waiting -= len(batch.events)
                if not batch.outcome.done():
                    batch.outcome.set_result(outcome)

        if resolved:
            self._on_loop(tell)

    def _on_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop was closed without waiting for the log
            self._loop.call_soon_threadsafe(call)
