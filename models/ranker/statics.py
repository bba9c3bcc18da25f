"""Numbers of items and users that a ranker reads as they are: counted from the events up to a moment, and no later."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.dataset import Dataset
from models.data.windows import MS_PER_DAY
from service.recommender.ranking.features import Static

Floats = npt.NDArray[np.float64]
WINDOWS = (3, 7, 14, 30, 90, 180, 365)
"""Days before the last event, in which an item's events are counted; one that holds all events is left out."""
HALF_LIVES = (7, 30)
"""Days."""
_PRIOR = 5.0
"""Events' worth of the mean that an item's own mean is held towards."""
_MOST_YEAR_GAPS = 0.5


def item_statics(dataset: Dataset) -> Static:
    """Count what items have been through: float32, a row an item.

    log_count: log(1 + events). log_place: mean of log(1 + place in the user's order), share: mean of that place as a
    share of the user's events, log_length: mean of log(1 + the user's events); each held towards the mean over all
    events. With timestamps: log_count of the last days, decayed counts, trend (30 days against 180), log days since
    the first and the last event. Then what the catalogue says in numbers: its columns of floats, and years.
    """
    n = dataset.n_items
    ordered = dataset.in_time_order()
    items, users = ordered.item_rows, ordered.user_rows
    count = np.bincount(items, minlength=n).astype(np.float64)
    columns: dict[str, Floats] = {"log_count": np.log1p(count)}
    if dataset.times is not None:
        per_user = np.bincount(users, minlength=dataset.n_users)
        place = np.arange(len(users)) - (np.cumsum(per_user) - per_user)[users]
        length = per_user[users]
        columns["log_place"] = _held_mean(items, np.log1p(place), count)
        columns["share"] = _held_mean(items, place / np.maximum(length - 1, 1), count)
        columns["log_length"] = _held_mean(items, np.log1p(length), count)
    if dataset.times is not None and dataset.time_kind == "timestamp" and len(dataset):
        columns |= _by_days(dataset)
    if dataset.items is not None:
        columns |= _numbers(dataset.items)
    return _static(columns, n)


def user_statics(dataset: Dataset) -> Static:
    """Count what users have done: float32, a row a user. log_count; with timestamps log days since the last event."""
    n = dataset.n_users
    columns = {"log_count": np.log1p(np.bincount(dataset.user_rows, minlength=n).astype(np.float64))}
    if dataset.times is not None and dataset.time_kind == "timestamp" and len(dataset):
        now = int(dataset.times.max())
        last = np.full(n, np.iinfo(np.int64).min)
        np.maximum.at(last, dataset.user_rows, dataset.times)
        known = np.bincount(dataset.user_rows, minlength=n) > 0
        days = np.full(n, np.nan)
        days[known] = (now - last[known]) / MS_PER_DAY
        columns["log_idle"] = np.log1p(days)
    return _static(columns, n)


def _static(columns: dict[str, Floats], n: int) -> Static:
    values = np.empty((n, len(columns)), np.float32)
    for place, column in enumerate(columns.values()):
        values[:, place] = column
    return Static(tuple(columns), values)


def _held_mean(items: npt.NDArray[np.int32], values: Floats, count: Floats) -> Floats:
    mean = float(values.mean()) if len(values) else 0.0
    sums = np.bincount(items, weights=values, minlength=len(count))
    held: Floats = (sums + _PRIOR * mean) / (count + _PRIOR)
    return held


def _by_days(dataset: Dataset) -> dict[str, Floats]:
    assert dataset.times is not None  # the caller looked
    n, items, now = dataset.n_items, dataset.item_rows, int(dataset.times.max())
    days = (now - dataset.times) / MS_PER_DAY
    columns: dict[str, Floats] = {}
    for window in WINDOWS:
        if window < days.max():
            columns[f"log_count_{window}d"] = np.log1p(np.bincount(items[days < window], minlength=n))
    for half_life in HALF_LIVES:
        decayed = np.bincount(items, weights=np.exp2(-days / half_life), minlength=n)
        columns[f"log_decayed_{half_life}d"] = np.log1p(decayed)
    if {"log_count_30d", "log_count_180d"} <= columns.keys():
        columns["trend"] = columns["log_count_30d"] - columns["log_count_180d"]
    first, last = np.full(n, -np.inf), np.full(n, np.inf)
    np.maximum.at(first, items, days)
    np.minimum.at(last, items, days)
    never = np.isinf(last)
    first[never] = last[never] = np.nan
    columns["log_age"], columns["log_idle"] = np.log1p(first), np.log1p(last)
    return columns


def _numbers(catalogue: pl.DataFrame) -> dict[str, Floats]:
    """Float columns; integer columns whose name says year; the year that ends most titles in brackets."""
    columns: dict[str, Floats] = {}
    for column in catalogue.columns:
        series = catalogue[column]
        if series.dtype.is_float() or (series.dtype.is_integer() and "year" in column.lower()):
            columns[column] = series.cast(pl.Float64).to_numpy().astype(np.float64)
        elif column in ("title", "name") and series.dtype == pl.String:
            years = series.str.extract(r"\((\d{4})\)\s*$", 1).cast(pl.Float64)
            if len(years) and years.null_count() <= _MOST_YEAR_GAPS * len(years):
                columns["title_year"] = years.fill_null(np.nan).to_numpy().astype(np.float64)
    return columns
