"""From the log to one row a user: who had which treatment, and the sums that metrics are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson
import polars as pl

from models.analysis.log import collected
from service.errors import InputError

OWN_SOURCES = ("personal", "fold_in")
"""Sources that know the user; any other answered in their place."""

LISTENED = pl.col("type").is_in(["view", "last"])
IS_SLATE = (pl.col("type") == "impression") & pl.col("items").is_not_null()

# Sums of a user's whole sessions, then of everything they were shown and did.
SESSION_SUMS: Mapping[str, pl.Expr] = {
    "tracks": LISTENED.cast(pl.Float64),
    "time": pl.when(LISTENED).then(pl.col("value")).otherwise(0.0).fill_null(0.0),
    "sessions": (pl.col("type") == "last").cast(pl.Float64),
    "requests": pl.col("latency_ms").is_not_null().cast(pl.Float64),
    "latency_ms": pl.col("latency_ms").fill_null(0.0),
}
OTHER_SUMS: Mapping[str, pl.Expr] = {
    "answers": pl.col("latency_ms").is_not_null().cast(pl.Float64),
    "answering_ms": pl.col("latency_ms").fill_null(0.0),
    "slates": IS_SLATE.cast(pl.Float64),
    "shown": pl.when(IS_SLATE).then(pl.col("items").list.len()).otherwise(0).cast(pl.Float64),
    "clicks": (pl.col("type") == "click").cast(pl.Float64),
    "purchases": (pl.col("type") == "purchase").cast(pl.Float64),
    "revenue": pl.when(pl.col("type") == "purchase").then(pl.col("value")).otherwise(0.0).fill_null(0.0),
    "degraded": (IS_SLATE & (pl.col("degraded").list.len() > 0)).fill_null(value=False).cast(pl.Float64),
    "fallback": (IS_SLATE & ~pl.col("source").is_in(OWN_SOURCES)).fill_null(value=False).cast(pl.Float64),
}


@dataclass(frozen=True, slots=True)
class Assigned:
    """Who was in an experiment. `users`: columns user_id, treatment; `began_ms`: its first record.

    `mixed`: users who were seen under several treatments, and are left out.
    """

    experiment: str
    users: pl.DataFrame
    treatments: tuple[str, ...]
    began_ms: int
    mixed: int


def assignments(events: pl.LazyFrame) -> dict[str, Assigned]:
    """Every experiment of the log by name. Treatments in order: the control first (`C`, `control`, else the first)."""
    seen = collected(
        events.filter(pl.col("treatments").is_not_null(), pl.col("user_id").is_not_null())
        .group_by("user_id", "treatments")
        .agg(pl.col("timestamp_ms").min().alias("first_ms"))
    )
    decoded = {text: _decoded(text) for text in seen["treatments"].unique()}
    names = sorted({name for one in decoded.values() for name in one})
    return {
        name: _assigned(name, seen, {text: one.get(name) for text, one in decoded.items()}) for name in names
    }


def _decoded(text: str) -> dict[str, str]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"--events: treatments must be a JSON object, not {text!r}")
    return {str(name): str(treatment) for name, treatment in found.items()}


def _assigned(name: str, seen: pl.DataFrame, treatment_of: Mapping[str, str | None]) -> Assigned:
    mapping = pl.DataFrame(
        {"treatments": list(treatment_of), "treatment": list(treatment_of.values())},
        schema={"treatments": pl.String, "treatment": pl.String},
    )
    found = seen.join(mapping, on="treatments").filter(pl.col("treatment").is_not_null())
    by_user = found.group_by("user_id").agg(
        pl.col("treatment").n_unique().alias("kinds"), pl.col("treatment").first()
    )
    pure = by_user.filter(pl.col("kinds") == 1).select("user_id", "treatment").sort("user_id")
    began = found["first_ms"].min()
    assert isinstance(began, int)
    return Assigned(name, pure, control_first(pure["treatment"].unique()), began, len(by_user) - len(pure))


def control_first(treatments: Iterable[str], control: str | None = None) -> tuple[str, ...]:
    """Order treatments: the control (None: C or control), then the others by name (T2 before T10)."""
    controls = {"c", "control"} if control is None else {control.casefold()}
    return tuple(sorted(treatments, key=lambda name: (name.casefold() not in controls, len(name), name)))


def user_sums(events: pl.LazyFrame) -> pl.DataFrame:
    """One row a user: user_id and, float64, every sum of SESSION_SUMS and OTHER_SUMS.

    A session is what a user did, by time, up to and with a `last`; what comes after their last one is unclosed and not
    in SESSION_SUMS. Rows at the very millisecond of that `last` belong to its session.
    """
    known = events.filter(pl.col("user_id").is_not_null())
    # Collected by itself: a join of two streams of the log would hold one of them.
    closed = collected(
        known.filter(pl.col("type") == "last")
        .group_by("user_id")
        .agg(pl.col("timestamp_ms").max().alias("closed_ms"))
    )
    inside = (pl.col("timestamp_ms") <= pl.col("closed_ms")).fill_null(value=False)
    wanted = known.select(
        "user_id",
        "timestamp_ms",
        *(sum_.alias(name) for name, sum_ in {**SESSION_SUMS, **OTHER_SUMS}.items()),
    )
    sums = (
        wanted.join(closed.lazy(), on="user_id", how="left")
        .group_by("user_id")
        .agg(
            *(pl.col(name).filter(inside).sum() for name in SESSION_SUMS),
            *(pl.col(name).sum() for name in OTHER_SUMS),
        )
    )
    return collected(sums).sort("user_id")
