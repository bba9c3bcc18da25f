"""Metrics: what is counted, and how it reaches Prometheus without slowing a request.

A request adds to plain integers (`ModelCounts`); `flush` carries their growth to prometheus-client. One process
flushes when it is scraped. Several (PROMETHEUS_MULTIPROC_DIR is set) each flush every `FLUSH_PERIOD_S`, and a scrape
waits one period before it adds up their files: a request answered before the scrape is in it, whoever answered.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.domain import Slate

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
PARENTS_SLOT = -1
"""Names the metric files of the workers' parent."""
FLUSH_PERIOD_S = 0.05
_Label = TypeVar("_Label", int, str)
UNKNOWN_MODEL = "unknown"
"""The model label of a request for no model that the bundle holds: labels are bounded by the bundle."""


def duration_bounds(budget_s: float) -> tuple[float, ...]:
    """Histogram bounds in seconds: doublings from 0.25 ms, with the budget, its half, 80% and double among them."""
    doublings = [0.00025 * 2**n for n in range(24)]
    marks = [round(budget_s * share, 9) for share in (0.5, 0.8, 1.0, 2.0)]
    return tuple(sorted({bound for bound in doublings if bound < marks[-1]} | set(marks)))


class _Spread:
    """One histogram's growth since the last flush."""

    __slots__ = ("bounds", "child", "counts", "total")

    def __init__(self, child: Histogram, bounds: tuple[float, ...]) -> None:
        self.child, self.bounds = child, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def flush(self) -> None:
        counts, total = self.counts, self.total
        self.counts, self.total = [0] * len(counts), 0.0
        if not any(counts):
            return
        # prometheus-client can only observe one value at a time; its buckets are values with `inc`, bound by bound.
        for bucket, count in zip(self.child._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self.child._sum.inc(total)


class ModelCounts:
    """What one model's requests add to. Plain attributes, written by the event loop's thread only."""

    __slots__ = (
        "_stage_spreads", "_telemetry", "degraded", "duration", "model", "overruns", "sources", "statuses", "topped_up",
    )  # fmt: skip

    def __init__(self, model: str, telemetry: Telemetry) -> None:
        self.model, self._telemetry = model, telemetry
        self.statuses: defaultdict[int, int] = defaultdict(int)
        self.sources: defaultdict[str, int] = defaultdict(int)
        self.degraded: defaultdict[str, int] = defaultdict(int)
        self.overruns = 0
        self.topped_up = 0
        self.duration = _Spread(telemetry.durations.labels(model), telemetry.bounds)
        self._stage_spreads: dict[str, _Spread] = {}

    def answered(self, status: int, seconds: float) -> None:
        """Count a request and its time, from its arrival to its answer's last byte handed over."""
        self.statuses[status] += 1
        self.duration.add(seconds)

    def slate(self, slate: Slate) -> None:
        """Count where a slate came from, what it cost by stage, and what was left out."""
        self.sources[slate.source] += 1
        short = len(slate.item_ids) - slate.n_personal
        if short:
            self.topped_up += short
        for stage in slate.degraded:
            self.degraded[stage] += 1
        spreads = self._stage_spreads
        for stage, seconds in slate.timings:
            spread = spreads.get(stage)
            if spread is None:
                telemetry = self._telemetry
                spread = spreads[stage] = _Spread(
                    telemetry.stages.labels(self.model, stage), telemetry.stage_bounds
                )
            spread.counts[bisect_left(spread.bounds, seconds)] += 1
            spread.total += seconds

    def flush(self) -> None:
        """Carry the growth since the last flush to prometheus-client."""
        telemetry, model = self._telemetry, self.model
        _carry(self.statuses, telemetry.requests, model)
        _carry(self.sources, telemetry.sources, model)
        _carry(self.degraded, telemetry.degraded, model)
        overruns, self.overruns = self.overruns, 0
        if overruns:
            telemetry.overruns.labels(model).inc(overruns)
        topped_up, self.topped_up = self.topped_up, 0
        if topped_up:
            telemetry.topped_up.labels(model).inc(topped_up)
        self.duration.flush()
        for spread in self._stage_spreads.values():
            spread.flush()


def _carry(counts: dict[_Label, int], counter: Counter, model: str) -> None:
    for label, count in counts.items():
        if count:
            counter.labels(model, label).inc(count)
            counts[label] = 0


class LiveFacts(Collector):
    """Facts of what is live, read at each scrape from the worker that answers it: nothing of an old bundle stays."""

    def __init__(self) -> None:
        self.bundle: tuple[str, str, str] | None = None
        """Bundle id, when it was made, and of which data."""
        self.recalls: tuple[tuple[str, int, float], ...] = ()
        """(model, k, recall@k of the retriever that serves)."""
        self.loop_lag_s = 0.0

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        info = GaugeMetricFamily(
            "reco_bundle_info",
            "The live bundle: always 1.",
            labels=["bundle_id", "created_at", "data", "retriever"],
        )
        if self.bundle is not None:
            info.add_metric(self.bundle, 1)
        yield info
        recall = GaugeMetricFamily(
            "reco_index_recall",
            "Measured recall@k of the retriever in use against exact search.",
            labels=["model", "k"],
        )
        for model, k, share in self.recalls:
            recall.add_metric([model, str(k)], share)
        yield recall
        yield GaugeMetricFamily(
            "reco_event_loop_lag_seconds", "Last lateness of the heartbeat.", value=self.loop_lag_s
        )


class Telemetry:
    """All metrics of one app, in a registry of their own."""

    def __init__(self, *, budget_s: float, worker_slot: int | None = None) -> None:
        """`worker_slot` names this process's metric files: a restarted worker goes on with its predecessor's."""
        folder = os.environ.get(MULTIPROCESS_DIR)
        self.multiprocess = folder is not None
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            slot = os.getpid() if worker_slot is None else worker_slot
            prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for every series, which nothing here reads
        self.registry = CollectorRegistry()
        self.bounds = duration_bounds(budget_s)
        self.stage_bounds = tuple(sorted({0.00001, 0.000025, 0.00005, 0.0001, *self.bounds}))
        self.requests = Counter(
            "reco_requests", "Requests answered.", ["model", "status"], registry=self.registry
        )  # fmt: skip
        self.durations = Histogram(
            "reco_request_duration_seconds", "Time from arrival to answer.", ["model"],
            buckets=self.bounds, registry=self.registry,
        )  # fmt: skip
        self.stages = Histogram(
            "reco_stage_duration_seconds", "Time in one stage of the line.", ["model", "stage"],
            buckets=self.stage_bounds, registry=self.registry,
        )  # fmt: skip
        self.sources = Counter(
            "reco_source", "Slates by where they came from.", ["model", "source"], registry=self.registry
        )
        self.degraded = Counter(
            "reco_degraded",
            "Slates that left a stage out or cut it short.",
            ["model", "stage"],
            registry=self.registry,
        )
        self.overruns = Counter(
            "reco_budget_overruns", "Answers later than their budget.", ["model"], registry=self.registry
        )
        self.topped_up = Counter(
            "reco_topped_up_items", "Places filled by the fallback.", ["model"], registry=self.registry
        )
        self.http = Counter(
            "reco_http_requests", "Requests to routes other than /reco, by template.", ["route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.reloads = Counter(
            "reco_reload", "Attempts to take up a published bundle, by result.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        self.shed_total = Counter(
            "reco_shed", "Requests told at once to come again (503), by why they could not be answered in time.",
            ["reason"], registry=self.registry,
        )  # fmt: skip
        self.shed: defaultdict[str, int] = defaultdict(int)
        """By reason, since the last flush. Plain, as all that a request adds to."""
        self.log_dropped = Counter(
            "reco_log_lines_dropped",
            "Log lines lost to a full queue or a reader gone.",
            registry=self.registry,
        )
        self.facts = LiveFacts()
        self._models: dict[str, ModelCounts] = {}
        self._exposed = CollectorRegistry() if self.multiprocess else self.registry
        if self.multiprocess:
            MultiProcessCollector(self._exposed, path=folder)  # type: ignore[no-untyped-call]
        self._exposed.register(self.facts)
        ProcessCollector(registry=self._exposed)

    def model(self, name: str) -> ModelCounts:
        """Counts of one model, made at its first use. The caller bounds the names."""
        counts = self._models.get(name)
        if counts is None:
            counts = self._models[name] = ModelCounts(name, self)
        return counts

    def models(self) -> Iterable[str]:
        """Names counted so far."""
        return self._models.keys()

    def flush(self) -> None:
        """Carry every model's growth to prometheus-client. Call from the event loop's thread."""
        for counts in self._models.values():
            counts.flush()
        for reason, count in self.shed.items():
            if count:
                self.shed_total.labels(reason).inc(count)
                self.shed[reason] = 0

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._exposed)
