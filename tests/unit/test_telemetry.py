from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.domain import Slate, Source
from service.telemetry import Telemetry, duration_bounds


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def slate(source: Source, n_personal: int, degraded: tuple[str, ...] = ()) -> Slate:
    return Slate([1, 2, 3], [3.0, 2.0, 1.0], source, n_personal, "popular", degraded, (("retrieve", 0.001),))


@given(st.floats(1e-3, 60))
def test_bounds_rise_and_hold_the_budget_and_its_double(budget_s: float) -> None:
    bounds = duration_bounds(budget_s)
    assert list(bounds) == sorted(set(bounds))
    assert {round(budget_s, 9), round(2 * budget_s, 9)} <= set(bounds)
    assert bounds[-1] == round(2 * budget_s, 9)
    assert len(bounds) < 30


@given(st.lists(st.floats(0, 0.3), max_size=40), st.integers(1, 5))
def test_counting_ahead_of_a_flush_equals_observing(seconds: list[float], flush_every: int) -> None:
    telemetry = Telemetry(budget_s=0.05)
    plain = Histogram("plain", "", ["model"], buckets=telemetry.bounds, registry=CollectorRegistry())
    counts, observed = telemetry.model("als"), plain.labels("als")
    for number, value in enumerate(seconds):
        counts.answered(200, value)
        observed.observe(value)
        if number % flush_every == 0:
            telemetry.flush()
    telemetry.flush()
    ours = samples(telemetry.exposition().decode())
    label = ("model", "als")
    for bound in telemetry.bounds:
        key = ("reco_request_duration_seconds_bucket", (("le", str(bound)), label))
        assert ours[key] == sum(value <= bound for value in seconds)
    assert ours[("reco_request_duration_seconds_count", (label,))] == len(seconds)
    assert ours[("reco_request_duration_seconds_sum", (label,))] == pytest.approx(sum(seconds))
    theirs = samples(generate_latest(plain_registry(plain)).decode())
    assert theirs[("plain_count", (label,))] == len(seconds)


def plain_registry(metric: Histogram) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(metric)
    return registry


def test_a_slate_is_counted_by_source_stage_and_what_was_topped_up() -> None:
    telemetry = Telemetry(budget_s=0.05)
    counts = telemetry.model("als")
    counts.slate(slate("personal", 3))
    counts.slate(slate("personal", 1))
    counts.slate(slate("popular", 3, ("retrieve",)))
    telemetry.flush()
    found = samples(telemetry.exposition().decode())
    als = ("model", "als")
    assert found[("reco_source_total", (als, ("source", "personal")))] == 2
    assert found[("reco_source_total", (als, ("source", "popular")))] == 1
    assert found[("reco_topped_up_items_total", (als,))] == 2
    assert found[("reco_degraded_total", (als, ("stage", "retrieve")))] == 1
    assert found[("reco_stage_duration_seconds_count", (als, ("stage", "retrieve")))] == 3


def test_a_second_flush_adds_nothing() -> None:
    telemetry = Telemetry(budget_s=0.05)
    telemetry.model("als").answered(200, 0.01)
    telemetry.flush()
    once = telemetry.registry.get_sample_value("reco_requests_total", {"model": "als", "status": "200"})
    telemetry.flush()
    twice = telemetry.registry.get_sample_value("reco_requests_total", {"model": "als", "status": "200"})
    assert once == twice == 1


def test_apps_of_one_process_count_apart() -> None:
    first, second = Telemetry(budget_s=0.05), Telemetry(budget_s=0.05)
    first.model("als").answered(200, 0.01)
    first.flush()
    second.flush()
    assert b'status="200"' in first.exposition()
    assert b'status="200"' not in second.exposition()


WORKER = textwrap.dedent(
    """
    import sys
    from service.telemetry import Telemetry
    slot, count = int(sys.argv[1]), int(sys.argv[2])
    telemetry = Telemetry(budget_s=0.05, worker_slot=slot)
    for _ in range(count):
        telemetry.model("als").answered(200, 0.01)
    telemetry.http.labels("/health", 200).inc(count)
    telemetry.flush()
    print(telemetry.exposition().decode())
    """
)


def run_worker(folder: Path, slot: int, count: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(slot), str(count)],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return samples(done.stdout)


def test_workers_are_summed_and_a_restarted_one_goes_on_in_its_own_files(tmp_path: Path) -> None:
    requests = ("reco_requests_total", (("model", "als"), ("status", "200")))
    buckets = ("reco_request_duration_seconds_count", (("model", "als"),))
    http = ("reco_http_requests_total", (("route", "/health"), ("status", "200")))
    run_worker(tmp_path, 0, 3)
    run_worker(tmp_path, 1, 4)
    files = sorted(path.name for path in tmp_path.iterdir())
    third = run_worker(tmp_path, 0, 5)
    assert (third[requests], third[buckets], third[http]) == (12, 12, 12)
    assert sorted(path.name for path in tmp_path.iterdir()) == files
