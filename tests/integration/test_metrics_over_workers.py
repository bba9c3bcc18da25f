"""Metrics of a service of several processes: whoever is scraped tells of all of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from served import Served, served, wait_for

OK = '{model="als",status="200"}'
REQUESTS = 60


def pids_that_answered(service: Served) -> set[int]:
    return {
        line["pid"]
        for line in service.log
        if line.get("requested_url", "").startswith(f"{service.url}/reco/")
    }


def ask_until_both_answered(service: Served, workers: set[int]) -> int:
    """Ask on new connections, so that the kernel spreads them, until every worker has answered; returns how often."""
    asked = 0

    def spread() -> bool:
        nonlocal asked
        for _ in range(REQUESTS):
            assert service.get("/reco/als/100").status_code == 200
            asked += 1
        return pids_that_answered(service) >= workers

    wait_for(spread, "an answer from every worker")
    return asked


def test_a_scrape_counts_what_every_worker_answered_before_it(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path) as service:
        first = service.workers
        asked = ask_until_both_answered(service, first)
        for _ in range(4):
            assert service.counted("reco_requests_total")[OK] == asked
        assert service.counted("reco_request_duration_seconds_count")['{model="als"}'] == asked
        assert sum(service.counted("reco_source_total").values()) == asked

        for _ in range(5):
            service.get("/reco/als/100")
            asked += 1
            assert service.counted("reco_requests_total")[OK] == asked, (
                "a scrape right after an answer missed it"
            )

        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: len(service.workers - first) == 1, "a new worker")
        asked += ask_until_both_answered(service, service.workers)
        assert service.counted("reco_requests_total")[OK] == asked
        assert len(service.counted("reco_bundle_info")) == 1
