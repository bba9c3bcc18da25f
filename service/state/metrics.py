"""What user state counts: plain integers on the request path, carried to Prometheus by a flush."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from prometheus_client import Counter, Gauge

from service.telemetry import Telemetry

Trouble = Literal["late", "away", "garbage"]
"""Why a history could not be read: not before the deadline; no connection, or an error; not in our format."""
CLOSED, HALF_OPEN, OPEN = 0, 1, 2


class HistoryCounts:
    """Counts of one process. Written by the event loop's thread only."""

    def __init__(self, telemetry: Telemetry) -> None:
        registry = telemetry.registry
        reads = Counter(
            "reco_history_reads", "Histories asked for, by outcome.", ["result"], registry=registry
        )
        self._reads = {result: reads.labels(result) for result in ("hit", "miss", "late", "away", "garbage")}
        writes = Counter(
            "reco_history_items", "Items appended to histories, by outcome: deferred ones are tried again.",
            ["result"], registry=registry,
        )  # fmt: skip
        self._writes = {result: writes.labels(result) for result in ("saved", "deferred", "lost")}
        self._unsaved = Gauge(
            "reco_history_unsaved_items", "Items that wait for the store to take them.",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._breaker = Gauge(
            "reco_history_breaker_state", "The worst worker's: 0 closed, 1 half open, 2 open.",
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._opened = Counter("reco_history_breaker_opened", "Times a breaker opened.", registry=registry)
        self.hits = 0
        self.misses = 0
        self.troubles: dict[Trouble, int] = {"late": 0, "away": 0, "garbage": 0}
        self.saved = 0
        self.deferred = 0
        self.lost = 0
        self.unsaved = 0
        self.opened = 0
        self.breaker = CLOSED
        self.watch: Callable[[], None] = _nothing
        """Called before a flush: a store that keeps a breaker tells of it here."""
        self._flushed: dict[Counter, int] = {}

    def flush(self) -> None:
        """Carry the growth since the last flush to prometheus-client."""
        self.watch()
        reads, writes = self._reads, self._writes
        totals = [
            (reads["hit"], self.hits), (reads["miss"], self.misses),
            *((reads[trouble], count) for trouble, count in self.troubles.items()),
            (writes["saved"], self.saved), (writes["deferred"], self.deferred), (writes["lost"], self.lost),
            (self._opened, self.opened),
        ]  # fmt: skip
        for counter, total in totals:
            growth = total - self._flushed.get(counter, 0)
            if growth:
                counter.inc(growth)
                self._flushed[counter] = total
        self._unsaved.set(self.unsaved)
        self._breaker.set(self.breaker)


def _nothing() -> None:
    """There is no breaker."""
