"""Popularity: counts of events, in a window, decayed, and by segment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset
from models.data.splits import places_from_start
from models.data.windows import MS_PER_DAY, in_window
from models.popularity.segments import segments_of
from models.trained import TrainedModel
from service.errors import InputError

Measure = Literal["count", "weight", "mean"]

Shares = npt.NDArray[np.float64]
NEW_FOR = 20
"""Events for which a user counts as new: what they read later, they read as somebody who is known."""
SEGMENT_LIST = 1_000
"""Items listed for one segment; the fallback goes on with everybody's."""


@dataclass(frozen=True, slots=True)
class Config:
    """What is counted and for whom. `days` is read by timestamped data only."""

    days: int | None = None
    """Count events of the last so many days (`models.data.windows.in_window`); None: all."""
    half_life: float | None = None
    """An event counts half for every so many days before the last event; read by timestamped data only."""
    measure: Measure = "count"
    """count: events. weight: their summed weight. mean: mean rating (weight where nothing is rated), held towards
    the data's by `smoothing` events."""
    segments: tuple[str, ...] = ()
    """Columns of the users' table that make a segment, such as age and sex."""
    segment_days: int | None = None
    """The window of the segments' own counts; None: the same as everybody's."""
    smoothing: float = 100.0
    """A segment's shares of items are held towards everybody's by so many events."""
    first: int | None = None
    """Of each user's events only the first so many make the lists of users without a history; None: those have no
    lists of their own. Read by data whose events have an order."""


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Rank items by what was read. Kind `popular`.

    Segment 0 is everybody and lists every item of the catalogue: by windowed score, then by events of all
    time, then by row, so the order is total. Another segment's score is an empirical-Bayes estimate of its
    shares, (events of the item there + smoothing * everybody's share) / (events there + smoothing): a small
    segment reads like everybody, and what it lacks is filled from everybody's list. It lists SEGMENT_LIST
    items. With `first` every segment, everybody's included, has a second list, of what its users read first, and
    `parameters.first_lists` says by how many places it stands behind the first: what people begin with is not what
    they read most, and it is what somebody without a history is asked about. Nothing is drawn at random, so `seed`
    changes nothing. Raises InputError where a setting is out of range or a column is missing.
    """
    del seed, progress
    _check(config)
    user_segment, names = segments_of(dataset, config.segments)
    counted = _counted(dataset, config, config.days)
    base = _score(dataset, config, counted, np.full(dataset.n_items, _mean_value(dataset, counted)))
    all_time = np.bincount(dataset.item_rows, minlength=dataset.n_items)
    order = _ranked(base, all_time)
    of_segments = counted if config.segment_days is None else _counted(dataset, config, config.segment_days)
    lists = [
        (order, base[order]),
        *_of_segments(dataset, config, of_segments, base, user_segment, len(names)),
    ]
    parameters: dict[str, Any] = {"segments": names}
    if config.first is not None and dataset.times is not None:
        parameters["first_lists"] = len(names)
        first = places_from_start(dataset) < config.first
        counted, of_segments = counted[first[counted]], of_segments[first[of_segments]]
        base = _score(dataset, config, counted, np.full(dataset.n_items, _mean_value(dataset, counted)))
        order = _ranked(base, all_time)[:SEGMENT_LIST]
        lists.append((order, base[order]))
        lists += _of_segments(dataset, config, of_segments, base, user_segment, len(names))
    return TrainedModel(
        kind="popular",
        arrays={
            "indptr": np.cumsum([0, *(len(rows) for rows, _ in lists)], dtype=np.int64),
            "items": np.concatenate([rows for rows, _ in lists]).astype(np.int32),
            "scores": np.concatenate([scores for _, scores in lists]).astype(np.float32),
            "user_segment": user_segment,
        },
        parameters=parameters,
        training={"algorithm": "popularity", **asdict(config), "segments": list(config.segments)},
    )


def _of_segments(
    dataset: Dataset,
    config: Config,
    counted: npt.NDArray[np.int64],
    base: Shares,
    user_segment: npt.NDArray[np.int32],
    n_segments: int,
) -> list[tuple[npt.NDArray[np.int64], Shares]]:
    """Each segment's list but everybody's: item rows, best first, and scores, from the events `counted`.

    base: everybody's scores, towards which a segment's are held.
    """
    event_segment = user_segment[dataset.user_rows[counted]]
    counted = counted[np.argsort(event_segment, kind="stable")]
    ends = np.cumsum(np.bincount(event_segment, minlength=n_segments))
    share = base / max(base.sum(), 1e-12)
    lists = []
    for number in range(1, n_segments):
        own = _score(dataset, config, counted[ends[number - 1] : ends[number]], base)
        if config.measure == "mean":
            estimate = own
        else:
            estimate = (own + config.smoothing * share) / max(own.sum() + config.smoothing, 1e-12)
        ranked = _ranked(estimate, base)[:SEGMENT_LIST]
        lists.append((ranked, estimate[ranked]))
    return lists


def _check(config: Config) -> None:
    for name, value in (
        ("days", config.days),
        ("half_life", config.half_life),
        ("segment_days", config.segment_days),
        ("first", config.first),
    ):
        if value is not None and not value > 0:
            raise InputError(f"popularity: {name} must be above 0, got {value}")
    if not config.smoothing >= 0:
        raise InputError(f"popularity: smoothing must not be below 0, got {config.smoothing}")


def _score(dataset: Dataset, config: Config, events: npt.NDArray[np.int64], prior: Shares) -> Shares:
    """Score items, float64 (n_items,), by some events. `prior`: what a mean is held towards, an item each."""
    rows = dataset.item_rows[events]
    decay: Shares = np.ones(len(rows), np.float64)
    if config.half_life is not None and dataset.times is not None and dataset.time_kind == "timestamp":
        days_before = (dataset.times.max(initial=0) - dataset.times[events]) / MS_PER_DAY
        decay = np.exp2(-days_before / config.half_life)
    count = _summed(rows, decay, dataset.n_items)
    if config.measure == "count":
        return count
    if config.measure == "weight":
        return _summed(rows, decay * dataset.weights[events], dataset.n_items)
    total = _summed(rows, decay * _values(dataset)[events], dataset.n_items)
    held: Shares = (total + config.smoothing * prior) / np.maximum(count + config.smoothing, 1e-12)
    return held


def _counted(dataset: Dataset, config: Config, days: int | None) -> npt.NDArray[np.int64]:
    kept = in_window(dataset, days)
    if config.measure == "mean" and dataset.ratings is not None:
        kept = kept & np.isfinite(dataset.ratings)
    return np.flatnonzero(kept)


def _values(dataset: Dataset) -> npt.NDArray[np.float32]:
    return dataset.weights if dataset.ratings is None else dataset.ratings


def _mean_value(dataset: Dataset, events: npt.NDArray[np.int64]) -> float:
    return float(_values(dataset)[events].mean(dtype=np.float64)) if len(events) else 0.0


def _summed(rows: npt.NDArray[np.int32], values: Shares, n_items: int) -> Shares:
    return np.bincount(rows, weights=values, minlength=n_items).astype(np.float64)


def _ranked(score: npt.NDArray[np.float64], tie: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Rows by score, then `tie`, then row. Scores compare as they are stored, in float32."""
    return np.lexsort((np.arange(len(score)), -tie, -score.astype(np.float32)))
