"""Locust: visitors who ask `/reco` for recommendations, think, and ask again.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8080               # with its web page
    locust -f loadtest/locustfile.py --host ... --headless -u 200 -r 50 -t 1m   # a report, then one JSON line

The token comes from RECO_TOKEN. `--think none` measures capacity; the default, 0.5..2 s, imitates people.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any, ClassVar

from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopTest

from loadtest.answers import fault_of
from loadtest.scenario import Scenario, add_options

events.init_command_line_parser.add_listener(add_options)


class Visitor(FastHttpUser):
    """One person with a keep-alive connection of their own."""

    scenario: ClassVar[Scenario]
    sources: ClassVar[Counter[str]] = Counter()
    degraded: ClassVar[Counter[str]] = Counter()

    def wait_time(self) -> float:
        """Think."""
        return self.scenario.next_pause()

    @task
    def recommend(self) -> None:
        """Ask for a user's items and check the answer."""
        request = self.scenario.next_request()
        with self.client.get(
            request.path, name=request.name, headers=self.scenario.headers, catch_response=True
        ) as response:
            fault = fault_of(response.status_code, response.content or b"", user=request.user, k=request.k)
            if fault is not None:
                response.failure(fault)
                return
            response.success()
            self.sources[response.headers.get("X-Reco-Source", "unsaid")] += 1
            for stage in filter(None, (response.headers.get("X-Reco-Degraded") or "").split(",")):
                self.degraded[stage.strip()] += 1


@events.init.add_listener
def check(environment: Environment, **_: Any) -> None:
    """Refuse options that make no sense before anything starts: one line, exit code 2."""
    try:
        Scenario(environment.parsed_options)
    except ValueError as error:
        print(f"locustfile: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    # `quit` comes after locust's own tables but isn't told of the environment.
    events.quit.add_listener(lambda **_: print(json.dumps(summary(environment)), flush=True))


@events.test_start.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Build the scenario from the options as they are now: the web page may have changed them."""
    worker = max(0, getattr(environment.runner, "worker_index", 0))
    try:
        Visitor.scenario = Scenario(environment.parsed_options, worker=worker)
    except ValueError as error:
        raise StopTest(str(error)) from None
    Visitor.sources.clear()
    Visitor.degraded.clear()


def summary(environment: Environment) -> dict[str, Any]:
    """Put a run into figures that a program can read."""
    total = environment.stats.total
    return {
        "requests": total.num_requests,
        "failures": total.num_failures,
        "failures_by_reason": dict(_reasons(environment)),
        "rps": round(total.total_rps, 1),
        "latency_ms": {
            f"p{share * 100:g}": total.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99)
        },
        "sources": dict(Visitor.sources),
        "degraded": dict(Visitor.degraded),
    }


def _reasons(environment: Environment) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for error in environment.stats.errors.values():
        reasons[str(error.error)] += error.occurrences
    return reasons
