"""From logs to what a build reads: the only way by which anything of the simulated world reaches training."""

from __future__ import annotations

from pathlib import Path

import polars as pl

LIKED_FROM = 0.5
"""Share of a track heard from which on the user is taken to like it."""
HELD_OUT = 0.2
"""Share of a day's likes, its latest, that a new bundle hasn't seen and is judged by."""


def likes_of_listening_log(path: Path, liked_from: float = LIKED_FROM) -> pl.DataFrame:
    """Read a log with botify's keys: user_id, item_id, timestamp, weight (share heard) and `organic`, by time.

    Whose choice a listen was the log doesn't say, so none is organic.
    """
    heard = pl.scan_ndjson(path, schema_overrides={"time": pl.Float64})
    return _likes(heard, "user", "track", "timestamp", "time", liked_from, pl.lit(value=False))


def likes_of_events(path: Path, liked_from: float = LIKED_FROM) -> pl.DataFrame:
    """Read an export of the event log: listens are its `view` and `last` events with a value.

    A listen that names no answer was the user's own choice, `organic`.
    """
    heard = pl.scan_parquet(path).filter(pl.col("type").is_in(["view", "last"]))
    organic = pl.col("request_id").is_null()
    return _likes(heard, "user_id", "item_id", "timestamp_ms", "value", liked_from, organic)


def _likes(
    heard: pl.LazyFrame, user: str, item: str, at_ms: str, share: str, liked_from: float, organic: pl.Expr
) -> pl.DataFrame:
    liked = heard.filter(pl.col(share) >= liked_from).select(
        pl.col(user).cast(pl.Int64).alias("user_id"),
        pl.col(item).cast(pl.Int64).alias("item_id"),
        pl.from_epoch(at_ms, time_unit="ms").cast(pl.Datetime("ms")).alias("timestamp"),
        pl.col(share).cast(pl.Float64).alias("weight"),
        organic.alias("organic"),
    )
    return liked.sort("timestamp", maintain_order=True).collect()


def hold_out(likes: pl.DataFrame, share: float = HELD_OUT) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a day's likes, ordered by time, into what is learnt from and the latest, which isn't."""
    cut = likes.height - round(likes.height * share)
    return likes.head(cut), likes.tail(likes.height - cut)


def judging_pairs(test: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Organic pairs of `test`, once each, that `known` lacks: what a user liked before is no recommendation.

    What was recommended would judge for the bundle that recommended it: nothing else could be liked.
    """
    keys = ["user_id", "item_id"]
    return (
        test.filter("organic")
        .select(keys)
        .unique(maintain_order=True)
        .join(known.select(keys), on=keys, how="anti")
    )
