"""KION, the competition's data: its exact schema, and its customary cleaning as a step of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from models.data.dataset import Dataset
from models.data.events import EventTable, Signal, read_events
from models.data.features import COMMA_LISTS, FeatureTable, read_features
from models.data.table import find, interactions_of
from models.data.tables import column_names, has_columns, scan_table
from service.errors import DataError, InputError

INTERACTIONS = ("user_id", "item_id", "last_watch_dt", "total_dur", "watched_pct")
USERS = ("user_id", "age", "income", "sex", "kids_flg")
ITEMS = (
    "item_id", "content_type", "title", "title_orig", "release_year", "genres", "countries", "for_kids",
    "age_rating", "studios", "directors", "actors", "description", "keywords",
)  # fmt: skip
LOOKS_FOR = f"interactions.* with columns {', '.join(INTERACTIONS)}"
SIGNALS = (Signal("total_dur", 0, 1e9), Signal("watched_pct", 0, 100))
"""Seconds watched, and share of the film or episode watched; the data has a few rows without the share."""


def accepts(path: Path) -> bool:
    """Whether there are interactions with KION's columns, and no users or items with other columns."""
    file = interactions_of(path)
    if file is None or not has_columns(file, INTERACTIONS):
        return False
    sides = ((find(path, "users"), USERS), (find(path, "items"), ITEMS)) if path.is_dir() else ()
    return all(side is None or has_columns(side, columns) for side, columns in sides)


def read(path: Path, columns: Mapping[str, str], progress: bool) -> Dataset:
    """Read KION's interactions, and users and items where the folder has them.

    Every event weighs 1; `total_dur` and `watched_pct` are kept as signals, so that thresholds on them are
    the caller's choice, not the reader's. Raises DataError where a table lacks one of its columns.
    """
    if columns:
        raise InputError(
            "--column does not go with --reader kion, whose columns are known; use --reader table"
        )
    file = interactions_of(path)
    if file is None:
        raise DataError(path, f"no KION interactions; looked for {LOOKS_FOR}")
    frame = scan_table(file)
    _require(file, column_names(frame, file), INTERACTIONS)
    events = EventTable(file, frame, {name: name for name in INTERACTIONS}, SIGNALS)
    users = _side(path, "users", "user_id", USERS) if path.is_dir() else None
    items = _side(path, "items", "item_id", ITEMS) if path.is_dir() else None
    return read_events(path.name.split(".")[0], events, users=users, items=items, progress=progress)


def _side(folder: Path, stem: str, id_column: str, wanted: Sequence[str]) -> FeatureTable | None:
    file = find(folder, stem)
    if file is None:
        return None
    _require(file, column_names(scan_table(file), file), wanted)
    return read_features(file, id_column)


def _require(file: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [column for column in wanted if column not in found]:
        raise DataError(file, f"no column {missing[0]!r} (KION has it); the columns are {', '.join(found)}")


def clean(dataset: Dataset) -> Dataset:
    """Fill and normalise KION's features as is customary in work on it.

    Users: missing age, income, sex -> `age_unknown`, `income_unknown`, `sex_unknown`; sex in Russian -> M/F;
    kids_flg -> 0/1. Items: missing release_year -> 2020, and its decade as `release_decade`; missing
    countries -> россия; lists lower-cased and sorted; missing for_kids and age_rating -> 0. Events: missing
    watched_pct -> 0.
    """
    signals = {name: np.nan_to_num(values, nan=0.0) for name, values in dataset.signals.items()}
    return replace(
        dataset,
        users=None if dataset.users is None else _clean_users(dataset.users),
        items=None if dataset.items is None else _clean_items(dataset.items),
        signals=signals,
    )


def _clean_users(users: pl.DataFrame) -> pl.DataFrame:
    return users.with_columns(
        pl.col("age").cast(pl.Utf8).fill_null("age_unknown"),
        pl.col("income").cast(pl.Utf8).fill_null("income_unknown"),
        pl.col("sex").cast(pl.Utf8).replace({"М": "M", "Ж": "F"}).fill_null("sex_unknown"),  # noqa: RUF001
        _flag("kids_flg"),
    )


def _clean_items(items: pl.DataFrame) -> pl.DataFrame:
    year = pl.col("release_year").cast(pl.Float64).fill_null(2020).cast(pl.Int64)
    lists = [name for name in items.columns if name in COMMA_LISTS]
    items = items.with_columns(
        year.alias("release_year"),
        ((year // 10 * 10).cast(pl.Utf8) + "s").alias("release_decade"),
        _flag("for_kids"),
        pl.col("age_rating").cast(pl.Float64).fill_null(0).cast(pl.Int64),
        *(_as_list(items[name]) for name in lists),
    )
    lowered = pl.element().str.to_lowercase()
    return items.with_columns(
        pl.when(pl.col(name).is_null() & pl.lit(name == "countries"))
        .then(pl.lit(["россия"]))
        .otherwise(pl.col(name).list.eval(lowered.sort()))
        .alias(name)
        for name in lists
    )


def _as_list(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        return column
    return column.cast(pl.Utf8).to_frame().select(pl.concat_list(pl.col(column.name))).to_series()


def _flag(name: str) -> pl.Expr:
    return (
        pl.col(name)
        .cast(pl.Utf8)
        .is_in(["1", "1.0", "true", "True"])
        .fill_null(value=False)
        .cast(pl.Int64)
        .alias(name)
    )
