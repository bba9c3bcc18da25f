"""Tune one model on the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.build.recipes import MORE_IN_FULL, RECIPES, Effort
from models.build.sampling import sample
from models.build.scoring import Exam, exam_of, ndcg
from models.build.tuning import Found, Gains, Trial, climb
from models.data.dataset import Dataset
from models.data.splits import Split, global_time, item_cold, user_cold
from models.popularity.popularity import NEW_FOR
from models.trained import TrainedModel

Search = Literal["climb", "sample"]
MAX_EVENTS = {"quick": 2_000_000, "full": 10_000_000}
MAX_EXAMINED = {"quick": 1_500, "full": 10_000}
LEAST_USERS = 30
"""Fewer held-out users are no exam of any kind."""
NEW_USERS = 0.25
"""Share of the users that a model for users without history is tuned on, where time can't tell who is new."""
NEW_ITEMS = 0.1
"""Share of the items that a model for items without events is tuned on."""
_FITS_KEPT = 2


def tune(
    name: str,
    split: Split,
    effort: Effort,
    *,
    seed: int = 0,
    start: Any = None,
    seconds: float = math.inf,
    search: Search = "climb",
    journal: Path | None = None,
    on_trial: Callable[[Trial[Any]], None] = lambda _: None,
) -> Found[Any]:
    """Search for the settings of the model `name` that give the best validation NDCG@10.

    `search`: climb the axes step by step, within a number of fits; or sample them (`models.build.sampling`), which
    needs a limit of `seconds` and takes up a `journal`.

    Data of more than MAX_EVENTS events is thinned by whole users, and MAX_EXAMINED users are examined, both
    drawn by `seed`. With effort "off", or nobody to examine, the start stands untried. Without a limit of
    `seconds` equal inputs end equal.
    """
    recipe = RECIPES[name]
    start = recipe.start(split.train) if start is None else start
    if effort == "off":
        return Found(start, math.nan, ())
    train = thinned(split.train, MAX_EVENTS[effort], seed)
    exam = exam_of(train, split.test, max_users=MAX_EXAMINED[effort], seed=seed, with_cold=recipe.for_cold)
    if recipe.for_items is not None:
        among = np.zeros(split.test.n_items, np.bool_)
        among[split.test.item_rows] = True
        exam = replace(exam, among=among)
    if len(exam) == 0:
        return Found(start, math.nan, ())
    fits = recipe.fits(train)
    if effort == "full":
        fits = max(fits, 1) * MORE_IN_FULL
    if fits == 0:
        return Found(start, math.nan, ())
    examiner = _Examiner(name, train, exam, seed)
    if search == "sample":
        return sample(
            start, recipe.axes(train), examiner.gains,
            seconds=seconds, seed=seed, journal=journal, on_trial=on_trial,
            name=f"{name} {split.train.fingerprint[:16]} {effort} {seed}",
        )  # fmt: skip
    return climb(
        start,
        recipe.axes(train),
        examiner.gains,
        max_fits=fits,
        seconds=seconds,
        margin=recipe.margin,
        fit_of=recipe.fit_of,
        on_trial=on_trial,
    )


def tuning_split(name: str, dataset: Dataset, common: Split, *, seed: int = 0) -> Split:
    """The split to tune a model on: `common`, `models.data.splits.validation_split`'s of the same data set.

    A model that answers users without history is asked about the last tenth of time, those users included,
    even where too few others are left to choose the rest by; without comparable times, about what a quarter of the
    users read first, of whom it was shown nothing but their features, where there are any. One for items without
    events is asked to tell a tenth of the items apart, of which it was shown none.
    """
    if RECIPES[name].for_items is not None:
        return item_cold(dataset, NEW_ITEMS, seed=seed)
    if not RECIPES[name].for_cold:
        return common
    if dataset.time_kind == "timestamp":
        split = global_time(dataset, quantile=0.9)
    elif dataset.times is not None or dataset.users is not None:
        split = user_cold(dataset, NEW_USERS, first=NEW_FOR, seed=seed)
    else:
        return common
    return split if len(np.unique(split.test.user_rows)) >= LEAST_USERS else common


def thinned(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Keep all events of some users, drawn by `seed`, so that about `most` events are left."""
    if len(dataset) <= most:
        return dataset
    per_user = np.bincount(dataset.user_rows, minlength=dataset.n_users)
    order = np.random.default_rng(seed).permutation(dataset.n_users)
    kept = np.zeros(dataset.n_users, bool)
    kept[order[np.cumsum(per_user[order]) <= most]] = True
    return dataset.select(kept[dataset.user_rows])


class _Examiner:
    """Trains a configuration and examines it; remembers the last fits."""

    def __init__(self, name: str, train: Dataset, exam: Exam, seed: int) -> None:
        self._recipe, self._train, self._exam, self._seed = RECIPES[name], train, exam, seed
        self._fits: dict[Any, TrainedModel] = {}

    def gains(self, config: Any) -> Gains:
        fit_config = self._recipe.rough(self._recipe.fit_of(config))
        fit = self._fits.pop(fit_config, None)
        if fit is None:
            fit = self._fit(fit_config)
        self._fits[fit_config] = fit
        while len(self._fits) > _FITS_KEPT:
            self._fits.pop(next(iter(self._fits)))
        return ndcg(self._recipe.refined(fit, self._train, config), self._exam)

    def _fit(self, config: Any) -> TrainedModel:
        if self._recipe.for_items is not None and self._exam.among is not None:
            items = np.flatnonzero(self._exam.among)
            return self._recipe.for_items(self._train, config, seed=self._seed, items=items)
        if self._recipe.for_users is not None:
            return self._recipe.for_users(self._train, config, seed=self._seed, users=self._exam.user_rows)
        return self._recipe.train(self._train, config, seed=self._seed)
