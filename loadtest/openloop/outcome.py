"""What became of a run's requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from loadtest.openloop.histogram import Histogram

SLICE_S = 0.1


@dataclass(slots=True)
class Outcome:
    """Counts and latencies. Every request sent ends in exactly one of: `statuses`, `lost`, `refused`, `late`.

    `lost`: it was sent, and its connection ended without a whole answer. `refused`: no connection could be made.
    `late`: given up after the patience. `faults`: answers of status 200 that are wrong, by reason. `degraded`: right
    ones that name a stage left out. `latency`: of status 200, from the instant the request was due. `lag`: how late
    the generator itself was. `in_budget`: right and within the budget.
    """

    rate: float
    seconds: float
    budget_s: float
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    refused: int = 0
    late: int = 0
    degraded: int = 0
    in_budget: int = 0
    latency: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    good_by_slice: Counter[int] = field(default_factory=Counter)
    """Slice of `SLICE_S` by when a request was due -> answers right and within the budget."""
    personal_by_slice: Counter[int] = field(default_factory=Counter)
    """The same, less those that left a stage out."""
    sent_by_slice: Counter[int] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> int:
        """Answers of status 200 that are right."""
        return self.statuses[200] - sum(self.faults.values())

    @property
    def shed(self) -> int:
        """Requests told to come again later."""
        return self.statuses[503]

    @property
    def errors(self) -> int:
        """Everything that is not a right answer."""
        return self.sent - self.ok

    @property
    def fallback_share(self) -> float:
        """Share of the right answers that left a stage out."""
        return self.degraded / self.ok if self.ok else 0.0

    @property
    def goodput(self) -> float:
        """Right answers within the budget, a second."""
        return self.in_budget / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Figures for a program."""
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
        return {
            "rate": round(self.rate, 1), "seconds": round(self.seconds, 2), "sent": self.sent, "ok": self.ok,
            "goodput": round(self.goodput, 1),
            "personal_goodput": round(self.personal_by_slice.total() / self.seconds, 1),
            "fallback_share": round(self.fallback_share, 5), "errors": self.errors,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "faults": dict(self.faults), "lost": self.lost, "refused": self.refused, "late": self.late,
            "sources": dict(self.sources),
            "latency_ms": {
                **{name: round(self.latency.quantile(share) * 1e3, 3) for name, share in shares.items()},
                "max": self.latency.greatest / 1e3,
            },
            "generator_lag_ms": {name: round(self.lag.quantile(share) * 1e3, 3) for name, share in shares.items()},
        }  # fmt: skip
