"""A search by sampling: a tree-structured Parzen estimator over the same axes that the climb walks, resumable.

Optuna's TPE (Bergstra et al., NeurIPS 2011) proposes places on the axes' grids, the start first. Where a journal is
given, what was tried stands in it, as lines of JSON, and a later search of the same model and data goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from models.build.tuning import Axis, Found, Gains, Trial

C = TypeVar("C")
_FRESH = 15
"""Trials drawn at random before the estimator speaks."""


def sample(
    start: C,
    axes: Sequence[Axis],
    examine: Callable[[C], Gains],
    *,
    seconds: float,
    most: int | None = None,
    seed: int = 0,
    journal: Path | None = None,
    name: str = "search",
    on_trial: Callable[[Trial[C]], None] = lambda _: None,
) -> Found[C]:
    """Search from `start` for so many seconds (and trials, those of the journal included, if `most` says).

    A configuration that was tried is not tried again, and counts as it scored. A setting whose start lies on no grid
    has it as a further value. Without a limit of time, and without a journal, equal seeds give equal ends.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None if journal is None else JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FRESH),
        storage=storage,
        study_name=name,
        load_if_exists=True,
    )
    choices = {axis.field: _values(start, axis) for axis in axes}
    if not study.trials:
        study.enqueue_trial({field: values.index(getattr(start, field)) for field, values in choices.items()})
    search = _Search(start, choices, examine, on_trial, study)
    until = time.monotonic() + seconds
    while time.monotonic() < until and (most is None or len(search.trials) < most) and not search.exhausted:
        search.step()
    best = max(search.trials, key=lambda trial: trial.score)
    return Found(best.config, best.score, tuple(search.trials))


def _values(start: Any, axis: Axis) -> list[Any]:
    """An axis's grid, and the start's own value where it isn't on it."""
    own = getattr(start, axis.field)
    return list(axis.values) if own in axis.values else [own, *axis.values]


class _Search:
    def __init__(
        self,
        start: Any,
        choices: dict[str, list[Any]],
        examine: Callable[[Any], Gains],
        on_trial: Callable[[Trial[Any]], None],
        study: optuna.Study,
    ) -> None:
        self._start, self._choices, self._examine = start, choices, examine
        self._on_trial, self._study = on_trial, study
        self._known: dict[Any, float] = {}
        self._idle = 0
        self.trials: list[Trial[Any]] = []
        done = optuna.trial.TrialState.COMPLETE
        for old in study.get_trials(deepcopy=False, states=(done,)):
            config = self._config(old.params)
            if old.value is not None and config not in self._known:
                self._known[config] = old.value
                took = old.duration.total_seconds() if old.duration is not None else math.nan
                self.trials.append(Trial(config, old.value, took))

    @property
    def exhausted(self) -> bool:
        """Whether nothing new has been proposed for long: a small grid is used up."""
        return self._idle >= 50 or len(self._known) >= math.prod(map(len, self._choices.values()))

    def step(self) -> None:
        """Ask for a place, examine it unless it is known, tell."""
        proposed = self._study.ask()
        config = self._config(
            {
                field: proposed.suggest_int(field, 0, len(values) - 1)
                for field, values in self._choices.items()
            }
        )
        if config in self._known:
            self._idle += 1
            self._study.tell(proposed, self._known[config])
            return
        self._idle = 0
        began = time.monotonic()
        gains = self._examine(config)
        score = float(gains.mean()) if len(gains) else 0.0
        self._study.tell(proposed, score)
        self._known[config] = score
        trial = Trial(config, score, time.monotonic() - began)
        self.trials.append(trial)
        self._on_trial(trial)

    def _config(self, places: dict[str, Any]) -> Any:
        chosen = {field: values[places[field]] for field, values in self._choices.items() if field in places}
        return replace(self._start, **chosen)
