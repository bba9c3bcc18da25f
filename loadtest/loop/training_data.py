"""From logs to what a build reads: the only way by which anything of the simulated world reaches training."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl

LIKED_FROM = 0.5
"""Share of a track heard from which on the user is taken to like it."""
HELD_OUT = 0.2
"""Share of a day's listens, its latest, that new bundles haven't seen and are judged by."""
_LISTENS = ("view", "impression", "last")
"""Events that a listen is reported as: an impression where the track was left early."""


def heard_of_listening_log(path: Path) -> pl.DataFrame:
    """All listens of a log with botify's keys, by time.

    Columns: message (`last` ends a session), user, track, time (share heard), timestamp.
    """
    rows = pl.scan_ndjson(path, schema_overrides={"time": pl.Float64})
    return _heard(rows, "message", "user", "track", "time", "timestamp")


def heard_of_events(path: Path) -> pl.DataFrame:
    """All listens of an export of the event log: its events of _LISTENS with an item and a value. Columns as above."""
    told = pl.col("type").is_in(_LISTENS) & pl.col("item_id").is_not_null() & pl.col("value").is_not_null()
    return _heard(pl.scan_parquet(path).filter(told), "type", "user_id", "item_id", "value", "timestamp_ms")


def _heard(rows: pl.LazyFrame, message: str, user: str, track: str, time: str, at_ms: str) -> pl.DataFrame:
    columns = rows.select(
        pl.col(message).alias("message"),
        pl.col(user).cast(pl.Int64).alias("user"),
        pl.col(track).cast(pl.Int64).alias("track"),
        pl.col(time).cast(pl.Float64).alias("time"),
        pl.from_epoch(at_ms, time_unit="ms").cast(pl.Datetime("ms")).alias("timestamp"),
    )
    return columns.sort("timestamp", maintain_order=True).collect()


def likes_of(heard: pl.DataFrame, liked_from: float = LIKED_FROM) -> pl.DataFrame:
    """What of it a build reads: user_id, item_id, timestamp and weight (share heard) of what was liked."""
    return heard.filter(pl.col("time") >= liked_from).select(
        pl.col("user").alias("user_id"),
        pl.col("track").alias("item_id"),
        "timestamp",
        pl.col("time").alias("weight"),
    )


def hold_out(heard: pl.DataFrame, share: float = HELD_OUT) -> tuple[pl.DataFrame, dt.datetime]:
    """Split a day, ordered by time: what is learnt from, and the moment from which on it isn't."""
    kept = heard.height - round(heard.height * share)
    begins: dt.datetime = heard["timestamp"][min(kept, heard.height - 1)]
    return heard.filter(pl.col("timestamp") < begins), begins
