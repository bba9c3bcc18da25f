"""What the log counts. Its threads add to plain integers that only grow; a flush carries the growth to Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from service.events.schema import FEEDBACK_TYPES
from service.telemetry import Telemetry

Result = Literal["accepted", "duplicate", "failed"]
RESULTS: tuple[Result, ...] = ("accepted", "duplicate", "failed")
SLATE = "slate"
"""The type label of impressions that the service makes itself."""
COMMIT_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
WRITING, FULL, BROKEN = 0, 1, 2


class EventCounts:
    """Counts of one process's log. Each number has one thread that writes it."""

    def __init__(self, telemetry: Telemetry) -> None:
        registry = telemetry.registry
        events = Counter(
            "reco_events", "Events by type and what became of them.", ["type", "result"], registry=registry
        )
        self._events = {
            (kind, result): events.labels(kind, result)
            for kind in (*FEEDBACK_TYPES, SLATE)
            for result in RESULTS
        }
        self._commit = Histogram(
            "reco_events_commit_seconds", "Time to write a group of events and sync it.",
            buckets=COMMIT_BOUNDS_S, registry=registry,
        )  # fmt: skip
        self._dropped = Counter(
            "reco_impressions_dropped", "Impressions lost to a full queue or a log that could not be written.",
            registry=registry,
        )  # fmt: skip
        self._published = Counter(
            "reco_events_published",
            "Records added to the shared stream, by result.",
            ["result"],
            registry=registry,
        )
        self._depth = Gauge(
            "reco_events_queue", "Events that wait to be written.", registry=registry, multiprocess_mode="sum"
        )
        self._state = Gauge(
            "reco_events_log_state", "The worst worker's log: 0 is written, 1 has no space, 2 is broken.",
            registry=registry, multiprocess_mode="max",
        )  # fmt: skip
        self.totals = dict.fromkeys(self._events, 0)
        self.commits = [0] * (len(COMMIT_BOUNDS_S) + 1)
        self.commit_seconds = 0.0
        self.dropped_by_emit = 0
        self.dropped_by_writer = 0
        self.published = 0
        self.unpublished = 0
        self.depth = 0
        self.state = WRITING
        self._flushed = dict(self.totals)
        self._flushed_commits = list(self.commits)
        self._flushed_seconds = 0.0
        self._flushed_dropped = 0
        self._flushed_published = (0, 0)

    def count(self, kind: str, result: Result, number: int = 1) -> None:
        """Add events. By the log's thread only."""
        self.totals[kind, result] += number

    def failed(self, kinds: Iterable[str]) -> None:
        """Add events that were not written."""
        for kind in kinds:
            self.totals[kind, "failed"] += 1

    def committed(self, seconds: float) -> None:
        """Add a commit."""
        self.commits[bisect_left(COMMIT_BOUNDS_S, seconds)] += 1
        self.commit_seconds += seconds

    @property
    def dropped(self) -> int:
        """Impressions lost so far."""
        return self.dropped_by_emit + self.dropped_by_writer

    def flush(self) -> None:
        """Carry the growth since the last flush to prometheus-client. By the event loop's thread only."""
        for label, total in self.totals.items():
            if total > self._flushed[label]:
                self._events[label].inc(total - self._flushed[label])
                self._flushed[label] = total
        commits, seconds, dropped = list(self.commits), self.commit_seconds, self.dropped
        for bucket, now, before in zip(self._commit._buckets, commits, self._flushed_commits, strict=True):
            if now > before:
                bucket.inc(now - before)
        self._commit._sum.inc(seconds - self._flushed_seconds)
        self._dropped.inc(dropped - self._flushed_dropped)
        self._flushed_commits, self._flushed_seconds, self._flushed_dropped = commits, seconds, dropped
        published = (self.published, self.unpublished)
        for result, now, before in zip(
            ("added", "left out"), published, self._flushed_published, strict=True
        ):
            self._published.labels(result).inc(now - before)
        self._flushed_published = published
        self._depth.set(self.depth)
        self._state.set(self.state)
