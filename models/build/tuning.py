"""A small, bounded search over a model's settings: probe each, then climb step by step on ordered grids."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

C = TypeVar("C")
Gains = npt.NDArray[np.float64]
"""float64 (m,): one figure a held-out user, larger is better."""

MAX_TRIALS = 80
"""Of all kinds, even those that need no new fit."""
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Axis:
    """One setting. `values`: its grid, in an order in which neighbours behave alike. `probes`: tried first."""

    field: str
    values: tuple[Any, ...]
    probes: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial(Generic[C]):
    """One configuration and what it scored: the mean over users."""

    config: C
    score: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Found(Generic[C]):
    """The best configuration, and all that were tried, in order."""

    config: C
    score: float
    trials: tuple[Trial[C], ...]


def climb(
    start: C,
    axes: Sequence[Axis],
    examine: Callable[[C], Gains],
    *,
    max_fits: int,
    seconds: float = math.inf,
    margin: float = 0.0,
    fit_of: Callable[[C], Hashable] = lambda config: config,
    on_trial: Callable[[Trial[C]], None] = lambda _: None,
) -> Found[C]:
    """Search from `start`: on each axis its probes, then neighbours on the grids until none is better.

    A configuration replaces the best if its gains are larger by more than `margin` standard errors of the paired
    difference. `max_fits` bounds configurations that differ in `fit_of` (what costs a new fit). Without a limit of
    `seconds` the outcome depends on the gains alone, so equal inputs end equal.
    """
    search = _Search(start, examine, max_fits, time.monotonic() + seconds, margin, fit_of, on_trial)
    for axis in axes:
        for value in axis.probes:
            search.attempt(axis.field, value)
    improved = True
    while improved and not search.exhausted():
        improved = False
        for axis in axes:
            improved |= _walk(search, axis, +1) or _walk(search, axis, -1)
    return Found(search.best, float(search.gains.mean()), tuple(search.trials))


def _walk(search: _Search[C], axis: Axis, step: int) -> bool:
    moved = False
    while True:
        here = getattr(search.best, axis.field)
        if here not in axis.values:
            return moved
        place = axis.values.index(here) + step
        if not 0 <= place < len(axis.values) or not search.attempt(axis.field, axis.values[place]):
            return moved
        moved = True


class _Search(Generic[C]):
    """The best so far, what was tried, and what is left of the budget."""

    def __init__(
        self,
        start: C,
        examine: Callable[[C], Gains],
        max_fits: int,
        until: float,
        margin: float,
        fit_of: Callable[[C], Hashable],
        on_trial: Callable[[Trial[C]], None],
    ) -> None:
        self._examine, self._max_fits, self._until = examine, max_fits, until
        self._margin, self._fit_of, self._on_trial = margin, fit_of, on_trial
        self._tried: set[C] = set()
        self._fits: set[Hashable] = set()
        self.trials: list[Trial[C]] = []
        self.best = start
        self.gains = self._try(start)

    def exhausted(self) -> bool:
        return time.monotonic() >= self._until or len(self.trials) >= MAX_TRIALS

    def attempt(self, field: str, value: Any) -> bool:
        """Try the best with one setting changed; whether that is better."""
        config = replace(self.best, **{field: value})  # type: ignore[type-var]
        if config in self._tried or self.exhausted():
            return False
        if self._fit_of(config) not in self._fits and len(self._fits) >= self._max_fits:
            return False
        gains = self._try(config)
        difference = gains - self.gains
        error = float(difference.std()) / math.sqrt(max(len(difference), 1))
        if not float(difference.mean()) > max(self._margin * error, _LEAST):
            return False
        self.best, self.gains = config, gains
        return True

    def _try(self, config: C) -> Gains:
        started = time.monotonic()
        gains = self._examine(config)
        self._tried.add(config)
        self._fits.add(self._fit_of(config))
        trial = Trial(config, float(gains.mean()) if len(gains) else 0.0, time.monotonic() - started)
        self.trials.append(trial)
        self._on_trial(trial)
        return gains
