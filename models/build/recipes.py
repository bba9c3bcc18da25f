"""The models a build knows: what they need, where their search starts, and what it may try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from models.als import als
from models.build.tuning import Axis
from models.content import content
from models.data.dataset import Dataset
from models.dssm import dssm
from models.dssm.config import Config as DssmConfig
from models.ease import ease
from models.event_weights import recency_of
from models.knn import item_knn, user_knn
from models.knn.truncation import narrowed
from models.lightfm import lightfm
from models.lightgcn import config as lightgcn
from models.mf import gradient, sampled
from models.neumf import config as neumf
from models.popularity import popularity
from models.popularity.segments import segment_choices
from models.propensity import ips_bpr
from models.sequence import config as sequence
from models.trained import TrainedModel
from models.transitions import transitions

Effort = Literal["off", "quick", "full"]
MORE_IN_FULL = 3
"""A full search may fit so many times what a quick one may."""


class Train(Protocol):
    """A trainer, as every room of models has one."""

    def __call__(self, dataset: Dataset, config: Any, *, seed: int, progress: bool = False) -> TrainedModel:
        """Train on all events of a data set."""


class ForUsers(Protocol):
    """Trains on all events, and makes vectors or lists for some users only: all that an exam reads."""

    def __call__(
        self, dataset: Dataset, config: Any, *, seed: int, users: npt.NDArray[np.int64] | None
    ) -> TrainedModel:
        """Train; `users` None makes them for everybody."""


class ForItems(Protocol):
    """Trains on all events, and lets some items only be found: all that an exam about those asks for."""

    def __call__(
        self, dataset: Dataset, config: Any, *, seed: int, items: npt.NDArray[np.int64] | None
    ) -> TrainedModel:
        """Train; `items` None lets every item be found."""


def _same(config: Any) -> Any:
    return config


def _as_fitted(fit: TrainedModel, _dataset: Dataset, _config: Any) -> TrainedModel:
    return fit


def _as_given(config: Any, _: TrainedModel) -> Any:
    return config


def _as_long(config: Any, trained: TrainedModel) -> Any:
    """No more epochs than were worth it: what comes after the best, only to see that it was, is spared."""
    return replace(config, max_epochs=max(1, min(config.max_epochs, int(trained.training["epochs"]))))


def _as_configured(fit: TrainedModel, dataset: Dataset, config: Any) -> TrainedModel:
    """An item-to-item fit with the configuration's own recency and width."""
    arrays = fit.arrays
    width = getattr(config, "width", None)
    if width is not None and "indptr" in arrays:
        arrays = narrowed(arrays, width)
    parameters = recency_of(dataset, config.history_half_life)
    return replace(fit, arrays=arrays, parameters=parameters, training={**fit.training, **asdict(config)})


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model. `axes` and `fits` look at the data's shape, never at its name.

    lacks: what the data lacks for this model, in words; None if nothing. fits: how many fits a quick search
    may take; 0: none, the start stands. fit_of: the configuration to fit for a given one; refined: makes that
    fit into what the given one would train. So settings that only scoring reads are tried without a new fit.
    margin: see `models.build.tuning.climb`. for_cold: it answers users without history too, so those are
    examined as well. for_items: the trainer, where it is there for items without events: it is tuned on items
    held out, and need do for those alone. for_users: the trainer, where it can do for the users examined
    alone. rough: a cheaper fit that ranks configurations alike; it is examined in place of the one given, and
    never kept. on_request: it is trained only where it is named, being dear, or there for comparison. forks: it
    computes with arrays alone, so that it may be trained in a forked process (`models.forked`). settled: makes the
    configuration for another moment of the same data, given what was trained at one: what that training found out
    need not be found again.
    """

    config_type: type[Any]
    train: Train
    axes: Callable[[Dataset], tuple[Axis, ...]]
    fits: Callable[[Dataset], int]
    start: Callable[[Dataset], Any]
    lacks: Callable[[Dataset], str | None] = lambda _: None
    fit_of: Callable[[Any], Any] = _same
    refined: Callable[[TrainedModel, Dataset, Any], TrainedModel] = _as_fitted
    margin: float = 0.0
    for_cold: bool = False
    for_items: ForItems | None = None
    for_users: ForUsers | None = None
    rough: Callable[[Any], Any] = _same
    on_request: bool = False
    forks: bool = False
    settled: Callable[[Any, TrainedModel], Any] = _as_given


ROUGH_ITERATIONS = 8
"""Of ALS while it is tuned: most of the fit, in half the time."""
_DSSM_AGAIN = 0.4
"""Of a training's time: what `models.dssm.training` keeps for training again with what was held out."""
WIDEST = 800
"""EASE weights kept of a row, at most, where not all are."""
_RECENCY = (None, 100, 50, 20, 10, 5, 3, 2, 1)
"""Half-lives in items."""


def _recency(dataset: Dataset, field: str, probes: tuple[int | None, ...]) -> tuple[Axis, ...]:
    return () if dataset.times is None else (Axis(field, _RECENCY, probes),)


def _weights(dataset: Dataset) -> tuple[Axis, ...]:
    repeated = dataset.matrix().nnz < len(dataset)
    weighted = repeated or (len(dataset) > 0 and float(np.ptp(dataset.weights)) > 0.0)
    rated = dataset.ratings is not None
    if not (weighted or rated):
        return ()
    values = ("binary", *(("log", "given") if weighted else ()), *(("rating",) if rated else ()))
    return (Axis("weights", values, values[1:2]),)


def _scaled(most: int, least: int, share: float) -> int:
    return max(least, min(most, int(most * share)))


def _popular_axes(dataset: Dataset) -> tuple[Axis, ...]:
    axes: tuple[Axis, ...] = ()
    if dataset.time_kind == "timestamp":
        axes += (
            Axis("days", (None, 180, 90, 60, 30, 14, 7, 3), (7, 14, 30, 90)),
            Axis("half_life", (None, 180, 90, 60, 30, 14, 7, 3), (7, 30)),
        )
    if dataset.times is not None:
        axes += (Axis("first", (None, 100, 50, 20, 10, 5), (20,)),)
    choices = tuple(segment_choices(dataset))
    if len(choices) > 1:
        axes += (Axis("segments", choices, choices), Axis("smoothing", (10, 30, 100, 300, 1000, 3000)))
    return axes


def _als_axes(dataset: Dataset) -> tuple[Axis, ...]:
    return (
        *_recency(dataset, "half_life", (20, 5, 2)),
        Axis("factors", (8, 16, 32, 64, 96, 128, 192, 256), (32, 128)),
        Axis("regularization", (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0), (1.0, 30.0)),
        Axis("alpha", (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 40.0), (0.5, 8.0)),
        *_weights(dataset),
    )


def _knn_axes(dataset: Dataset) -> tuple[Axis, ...]:
    dated = dataset.time_kind == "timestamp"
    windows = (Axis("days", (None, 730, 365, 180, 120, 60, 30), (60,)),) if dated else ()
    return (
        *_recency(dataset, "history_half_life", (20, 5, 2)),
        Axis("weighting", ("cosine", "tfidf", "bm25"), ("tfidf", "bm25")),
        Axis("neighbours", (20, 50, 100, 200, 400, 800), (50,)),
        *windows,
        *_recency(dataset, "half_life", (20,)),
        *_weights(dataset),
        Axis("shrinkage", (0.0, 10.0, 50.0), (10.0,)),
    )


def _ease_axes(dataset: Dataset) -> tuple[Axis, ...]:
    widths = () if dataset.n_items <= ease.DENSE_ITEMS else (Axis("width", (50, 100, 200, 400, WIDEST)),)
    return (
        *_recency(dataset, "history_half_life", (20, 5, 2)),
        Axis(
            "regularization",
            (10.0, 30.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0),
            (100.0, 500.0, 2000.0),
        ),
        *_recency(dataset, "half_life", (20,)),
        *widths,
    )


def _pairs_of_items(dataset: Dataset) -> float:
    """What comparing items costs: the pairs that users make, and picking neighbours among all."""
    per_user = np.bincount(dataset.user_rows, minlength=1).astype(np.float64)
    return float((per_user**2).sum()) + 8.0 * dataset.n_items**2


def _ease_start(dataset: Dataset) -> ease.Config:
    """Few events an item want less pull; a wide catalogue keeps the strongest weights only."""
    events_per_item = len(dataset) / max(dataset.n_items, 1)
    return ease.Config(
        regularization=500.0 if events_per_item >= 30 else 100.0,
        width=400 if dataset.n_items > ease.DENSE_ITEMS else None,
    )


def _ease_lacks(dataset: Dataset) -> str | None:
    n = len(np.unique(dataset.item_rows))
    return None if n <= ease.MAX_ITEMS else f"{n} items with events; EASE takes up to {ease.MAX_ITEMS}"


def _transitions_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("history_half_life", (None, 50, 20, 10, 5, 3, 2, 1, 0.5), (5, 1)),
        Axis("gap_half_life", (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0), (2.0, 10.0)),
        Axis("backward", (0.0, 0.1, 0.3, 0.6, 1.0), (0.3,)),
        Axis("discount", (0.0, 0.1, 0.2, 0.3, 0.5), (0.2,)),
        Axis("shrinkage", (0.0, 10.0, 50.0, 200.0), (10.0,)),
        Axis("window", (5, 10, 20, 40)),
    )


def _user_knn_axes(dataset: Dataset) -> tuple[Axis, ...]:
    return (
        *_recency(dataset, "half_life", (5, 2)),
        Axis("neighbours", (25, 50, 100, 200, 400), (200,)),
        Axis("idf", (True, False)),
        *_weights(dataset),
    )


def _user_knn_lacks(dataset: Dataset) -> str | None:
    n = len(np.unique(dataset.user_rows))
    return (
        None
        if n <= user_knn.MAX_USERS
        else f"{n} users with events; user-kNN takes up to {user_knn.MAX_USERS}"
    )


def _lightfm_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("features", (True, False), (False,)),
        Axis("factors", (16, 32, 64, 128), (32,)),
        Axis("epochs", (10, 20, 40), (40,)),
        Axis("learning_rate", (0.02, 0.05, 0.1)),
        Axis("max_sampled", (10, 30, 100)),
    )


def _train_sequence(dataset: Dataset, config: Any, *, seed: int, progress: bool = False) -> TrainedModel:
    sequence.refuse_impossible(dataset, config)
    from models.sequence import training  # noqa: PLC0415 - torch is an extra, and slow to load

    return training.train(dataset, config, seed=seed, progress=progress)


def _sequence_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("dropout", (0.1, 0.2, 0.3, 0.4, 0.5)),
        Axis("learning_rate", (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)),
        Axis("block", ("attention", "gated"), ("gated",)),
        Axis("dim", (32, 64, 128)),
        Axis("blocks", (1, 2, 3)),
    )


def _train_lightgcn(dataset: Dataset, config: Any, *, seed: int, progress: bool = False) -> TrainedModel:
    lightgcn.refuse_impossible(dataset, config)
    from models.lightgcn import training  # noqa: PLC0415 - torch is an extra, and slow to load

    return training.train(dataset, config, seed=seed, progress=progress)


def _train_neumf(dataset: Dataset, config: Any, *, seed: int, progress: bool = False) -> TrainedModel:
    neumf.refuse_impossible(dataset, config)
    from models.neumf import training  # noqa: PLC0415 - torch is an extra, and slow to load

    return training.train(dataset, config, seed=seed, progress=progress)


def _neumf_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("factors", (8, 16, 32, 64)),
        Axis("learning_rate", (0.0005, 0.001, 0.002, 0.005)),
        Axis("negatives", (1, 2, 4, 8)),
    )


def _lightgcn_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("layers", (1, 2, 3, 4)),
        Axis("learning_rate", (0.003, 0.01, 0.03, 0.1)),
        Axis("dim", (32, 64, 128)),
        Axis("regularization", (0.0, 1e-6, 1e-5, 1e-4, 1e-3)),
    )


def _sampled_axes(rates: tuple[float, ...]) -> tuple[Axis, ...]:
    return (
        Axis("factors", (16, 32, 64, 128), (32,)),
        Axis("learning_rate", rates, rates),
        Axis("regularization", (0.001, 0.01, 0.03, 0.1, 0.6), (0.03,)),
        Axis("iterations", (15, 30, 60, 120), (120,)),
    )


def _dssm_settled(config: DssmConfig, trained: TrainedModel) -> DssmConfig:
    """The epochs that its held-out items said, in the time that a training has left once they have."""
    if config.epochs:
        return config
    found = max(1, int(trained.training["epochs_run"]))
    return replace(config, epochs=found, max_seconds=_DSSM_AGAIN * config.max_seconds)


def _dssm_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("temperature", (0.05, 0.1, 0.2, 0.4, 1.0), (0.05, 0.2)),
        Axis("dropout", (0.0, 0.1, 0.2, 0.4), (0.4,)),
        Axis("dim", (32, 64, 128), (128,)),
        Axis("horizon", (1, 2, 5, 10), (2,)),
        Axis("hard_negatives", (0, 4, 16), (4,)),
        Axis("learning_rate", (0.001, 0.003, 0.01)),
    )


def _content_axes(_: Dataset) -> tuple[Axis, ...]:
    return (
        Axis("terms", ("values", "both", "words"), ("values", "words")),
        Axis("rarity", (1.0, 1.5, 2.0, 2.5, 3.0), (1.0,)),
        Axis("hubs", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        Axis("length", (0.0, 0.1, 0.2, 0.3)),
    )


RECIPES: dict[str, Recipe] = {
    "popular": Recipe(
        popularity.Config,
        popularity.train,
        axes=_popular_axes,
        fits=lambda _: 40,
        start=lambda _: popularity.Config(),
        margin=1.0,
        for_cold=True,
    ),
    "als": Recipe(
        als.Config,
        als.train,
        axes=_als_axes,
        fits=lambda data: _scaled(16, 8, 2e6 / max(len(data), 1)),
        start=lambda _: als.Config(),
        for_users=als.train,
        rough=lambda config: replace(config, iterations=min(config.iterations, ROUGH_ITERATIONS)),
        forks=True,
    ),
    "knn": Recipe(
        item_knn.Config,
        item_knn.train,
        axes=_knn_axes,
        fits=lambda data: _scaled(12, 4, 1e9 / max(_pairs_of_items(data), 1.0)),
        start=lambda _: item_knn.Config(),
        fit_of=lambda config: replace(config, history_half_life=None),
        refined=_as_configured,
        forks=True,
    ),
    "ease": Recipe(
        ease.Config,
        ease.train,
        axes=_ease_axes,
        fits=lambda data: _scaled(7, 1, 4e11 / max(float(data.n_items), 1.0) ** 3),
        start=_ease_start,
        lacks=_ease_lacks,
        fit_of=lambda config: replace(config, history_half_life=None, width=config.width and WIDEST),
        refined=_as_configured,
        forks=True,
    ),
    "transitions": Recipe(
        transitions.Config,
        transitions.train,
        axes=_transitions_axes,
        fits=lambda data: _scaled(16, 6, 2e6 / max(len(data), 1)),
        start=lambda _: transitions.Config(),
        lacks=transitions.lacks,
        fit_of=lambda config: replace(config, history_half_life=None),
        refined=_as_configured,
        forks=True,
    ),
    "userknn": Recipe(
        user_knn.Config,
        user_knn.train,
        axes=_user_knn_axes,
        fits=lambda data: _scaled(4, 2, 4e7 / max(float(data.n_users), 1.0) ** 2),
        start=lambda _: user_knn.Config(),
        lacks=_user_knn_lacks,
        for_users=user_knn.train,
        forks=True,
    ),
    "content": Recipe(
        content.Config,
        content.train,
        axes=_content_axes,
        fits=lambda data: _scaled(16, 4, 5e9 / max(float(data.n_items) ** 2, 1.0)),
        start=lambda _: content.Config(),
        lacks=content.lacks,
        for_items=content.train,
        on_request=True,
    ),
    "lightfm": Recipe(
        lightfm.Config,
        lightfm.train,
        axes=_lightfm_axes,
        fits=lambda data: _scaled(6, 2, 1e6 / max(len(data), 1)),
        start=lambda _: lightfm.Config(),
        lacks=lightfm.lacks,
        on_request=True,
    ),
    "bpr": Recipe(
        sampled.BprConfig,
        sampled.train_bpr,
        axes=lambda _: _sampled_axes((0.01, 0.03, 0.1)),
        fits=lambda data: _scaled(12, 4, 4e6 / max(len(data), 1)),
        start=lambda _: sampled.BprConfig(),
        on_request=True,
        forks=True,
    ),
    "ips_bpr": Recipe(
        ips_bpr.Config,
        ips_bpr.train,
        axes=lambda _: (
            Axis("power", (0.0, 0.5, 1.0, 2.0), (0.0,)),
            Axis("dim", (8, 16, 32, 64), (16,)),
            Axis("epochs", (10, 20, 40, 80), (40,)),
            Axis("learning_rate", (0.02, 0.05, 0.1)),
        ),
        fits=lambda data: _scaled(6, 2, 5e5 / max(len(data), 1)),
        start=lambda _: ips_bpr.Config(),
        lacks=ips_bpr.lacks,
        on_request=True,
        forks=True,
    ),
    "lmf": Recipe(
        sampled.LmfConfig,
        sampled.train_lmf,
        axes=lambda _: _sampled_axes((0.3, 1.0, 3.0)),
        fits=lambda data: _scaled(12, 4, 4e6 / max(len(data), 1)),
        start=lambda _: sampled.LmfConfig(),
        on_request=True,
        forks=True,
    ),
    "mf": Recipe(
        gradient.Config,
        gradient.train,
        axes=lambda _: (),
        fits=lambda _: 1,
        start=lambda _: gradient.Config(),
        lacks=gradient.lacks,
        on_request=True,
        forks=True,
    ),
    "dssm": Recipe(
        DssmConfig,
        dssm.train,
        axes=_dssm_axes,
        fits=lambda _: 0,
        start=dssm.start_of,
        lacks=dssm.lacks,
        on_request=True,
        settled=_dssm_settled,
    ),
    "sequence": Recipe(
        sequence.Config,
        _train_sequence,
        axes=_sequence_axes,
        fits=lambda _: 0,
        start=sequence.start_of,
        lacks=sequence.lacks,
        on_request=True,
    ),
    "lightgcn": Recipe(
        lightgcn.Config,
        _train_lightgcn,
        axes=_lightgcn_axes,
        fits=lambda _: 0,
        start=lightgcn.start_of,
        lacks=lightgcn.lacks,
        on_request=True,
        forks=True,
        settled=_as_long,
    ),
    "neumf": Recipe(
        neumf.Config,
        _train_neumf,
        axes=_neumf_axes,
        fits=lambda _: 0,
        start=lambda _: neumf.Config(),
        lacks=neumf.lacks,
        on_request=True,
        forks=True,
        settled=_as_long,
    ),
}
"""In the order they are trained and shown."""
