"""What a stage costs, learned as it runs, so that a request can tell beforehand whether it still fits."""

from __future__ import annotations

_RISE = 0.5
_FALL = 0.005
_RETRY = 0.002


class StageCost:
    """A running upper estimate of what a stage takes, seconds.

    Each run counts as the lesser of itself and the run before: a lone hiccup (a page fault, a neighbour's burst) is no
    reason to deny the next hundred users their answer; two in a row are. The estimate rises half-way to a cost above
    it and falls by 0.5% on one below (a stochastic quantile step, as in Robbins and Monro, 1951, with unequal steps).
    Each time the stage is skipped for its cost the estimate falls by 0.2%, so it is tried again now and then: a stage
    that has recovered comes back, one that has not overruns rarely.
    """

    __slots__ = ("_before", "upper")

    def __init__(self, initial: float = 0.0) -> None:
        self.upper = self._before = initial

    def observe(self, seconds: float) -> None:
        """Learn from one run."""
        cost = seconds if seconds < self._before else self._before
        self._before = seconds
        if cost > self.upper:
            self.upper += _RISE * (cost - self.upper)
        else:
            self.upper -= _FALL * self.upper

    def skipped(self) -> None:
        """Learn from not having run."""
        self.upper -= _RETRY * self.upper
