"""Searches and trainings of a build, side by side in forked processes where the data is small enough for two at once.

One core and eight end alike: each search, and each training, depends on its own data, settings and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from models.build.limits import UNLIMITED, Limits
from models.build.recipes import RECIPES, Effort
from models.build.tune import tune, tuning_split
from models.build.tuning import Found, Trial
from models.data.dataset import Dataset
from models.data.splits import Split
from models.forked import Answer, answers, cores
from models.trained import TrainedModel

MOST_EVENTS = 2_000_000
"""Above, a training takes what memory there is, and its own threads keep the cores busy."""
OnTrial = Callable[[str, Trial[Any]], None]


def at_once(dataset: Dataset) -> int:
    """How many of this data set's models to train, or to search, at once."""
    return cores() if len(dataset) <= MOST_EVENTS else 1


def tuned(
    names: Sequence[str],
    dataset: Dataset,
    common: Split,
    given: Mapping[str, Any],
    effort: Effort,
    *,
    seed: int,
    on_trial: OnTrial,
    limits: Limits = UNLIMITED,
) -> dict[str, Any]:
    """Settle the models' configurations, in the order of `names`: those given, the others by `models.build.tune`.

    `common`: see `models.build.tune.tuning_split`. `on_trial` hears of a forked search's trials when it has ended.
    With `limits` what is found depends on how fast the machine is.
    """
    found = dict(given)
    beside = at_once(dataset)

    def end_of(name: str, left: int, at_once: int, on_trial: Callable[[Trial[Any]], None]) -> Found[Any]:
        split = tuning_split(name, dataset, common)
        start = limits.kept_by(name, RECIPES[name].start(split.train))
        seconds = limits.of_search(left, at_once)
        return tune(name, split, effort, seed=seed, start=start, seconds=seconds, on_trial=on_trial)

    def search(name: str, left: int) -> Answer:
        end = end_of(name, left, beside, lambda _: None)
        trials = [[asdict(trial.config), trial.score, trial.seconds] for trial in end.trials]
        return Answer({"config": asdict(end.config), "trials": trials})

    waiting = [name for name in names if name not in given]
    forked = [name for name in waiting if RECIPES[name].forks and effort != "off" and beside > 1]
    # Those of the most fits first: the last to end should not have begun late.
    forked.sort(key=lambda name: -RECIPES[name].fits(common.train))

    def take(place: int, ended: Answer) -> None:
        name = forked[place]
        found[name] = _config(name, ended.facts["config"])
        for config, score, seconds in ended.facts["trials"]:
            on_trial(name, Trial(_config(name, config), score, seconds))

    others = [name for name in waiting if name not in forked]
    begun = len(forked) + len(others)
    answers(
        [partial(search, name, begun - place) for place, name in enumerate(forked)],
        at_once=beside,
        on_done=take,
    )
    for place, name in enumerate(others):
        found[name] = end_of(name, len(others) - place, 1, partial(on_trial, name)).config
    return {name: found[name] for name in names}


def trained(
    moments: Sequence[Dataset], configs: Sequence[Mapping[str, Any]], *, seed: int, progress: bool
) -> list[dict[str, TrainedModel]]:
    """Train the models of `configs` (one mapping a moment), on the events of each moment. Keeps the order of names."""
    done: dict[tuple[int, str], TrainedModel] = {}

    def one(moment: int, name: str, *, shown: bool) -> TrainedModel:
        config = configs[moment][name]
        return RECIPES[name].train(moments[moment], config, seed=seed, progress=shown)

    def packed(moment: int, name: str) -> Answer:
        return _packed(one(moment, name, shown=False))

    beside = min(map(at_once, moments))
    wanted = [(moment, name) for moment, named in enumerate(configs) for name in named]
    forked = [(moment, name) for moment, name in wanted if RECIPES[name].forks and beside > 1]
    found = answers([partial(packed, *job) for job in forked], at_once=beside)
    done.update(zip(forked, map(_unpacked, found), strict=True))
    for job in wanted:
        if job not in done:
            done[job] = one(*job, shown=progress)
    return [{name: done[moment, name] for name in named} for moment, named in enumerate(configs)]


def settled(configs: Mapping[str, Any], models: Mapping[str, TrainedModel]) -> dict[str, Any]:
    """Take into the configurations what these models' trainings found out, and later ones need not find again."""
    return {name: RECIPES[name].settled(config, models[name]) for name, config in configs.items()}


def _config(name: str, values: Mapping[str, Any]) -> Any:
    """Make a configuration of what JSON made of it."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return RECIPES[name].config_type(**plain)


def _packed(model: TrainedModel) -> Answer:
    arrays = {f"array {role}": array for role, array in model.arrays.items()}
    if model.tower is not None:
        arrays["tower"] = np.frombuffer(model.tower, np.uint8)
    facts = [model.kind, model.space, dict(model.parameters), dict(model.training)]
    return Answer(facts, arrays)


def _unpacked(answer: Answer) -> TrainedModel:
    kind, space, parameters, training = answer.facts
    arrays = dict(answer.arrays)
    tower = arrays.pop("tower", None)
    return TrainedModel(
        kind=kind,
        arrays={role.removeprefix("array "): array for role, array in arrays.items()},
        space=space,
        parameters=parameters,
        training=training,
        tower=None if tower is None else tower.tobytes(),
    )
