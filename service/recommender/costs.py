"""What a stage costs, learned as it runs, so that a request can tell beforehand whether it still fits."""

from __future__ import annotations

_RISE = 0.5
_FALL = 0.005
_RETRY = 0.002


class StageCost:
    """A running upper estimate of a stage's seconds, near its p99.

    Rises half-way to a cost above it, falls by 0.5% on one below (a stochastic quantile step, as in Robbins and
    Monro, 1951, with unequal steps). Each time the stage is skipped for its cost the estimate falls by 0.2%, so it is
    tried again now and then: a stage that has recovered comes back, one that has not overruns rarely.
    """

    __slots__ = ("p99",)

    def __init__(self, initial: float = 0.0) -> None:
        self.p99 = initial

    def observe(self, seconds: float) -> None:
        """Learn from one run."""
        if seconds > self.p99:
            self.p99 += _RISE * (seconds - self.p99)
        else:
            self.p99 -= _FALL * self.p99

    def skipped(self) -> None:
        """Learn from not having run."""
        self.p99 -= _RETRY * self.p99
