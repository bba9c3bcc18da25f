"""What the policy under evaluation would have shown, at each place that was logged, given the places before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from models.analysis.explored import Explored, RewardModel
from models.analysis.log import collected
from models.data.tables import column_names, scan_table
from models.progress import ticking
from service.domain import Deadline, IdKind, ItemId, Plan, Query, Slate, UserId
from service.errors import DataError, InputError
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend

Floats = npt.NDArray[np.float64]
_COUNTED = ("view", "click", "purchase", "rating", "last")
"""Feedback that the service takes into a user's recent history."""


@dataclass(frozen=True, slots=True)
class Target:
    """Places in the order of `Explored.slots`.

    probability: float64 (n_slots,), of the logged item. logged: what the reward model says of it. expected: what the
    model says of the target's choice; None where the target is not told whole.
    """

    probability: Floats
    logged: Floats
    expected: Floats | None


def of_file(path: Path, explored: Explored, model: RewardModel) -> Target:
    """Read probabilities: a table of request_id, position (from 0), item_id, probability.

    An item that is not in it has probability 0. Raises InputError for no such file; DataError naming file and value
    for another column, a probability outside [0, 1], an item twice at a place, or a place with more than 1 in all.
    """
    table = scan_table(path)
    wanted = {"request_id": pl.String, "position": pl.Int64, "item_id": pl.String, "probability": pl.Float64}
    for name in wanted:
        if name not in column_names(table, path):
            raise DataError(
                path, f"no column {name!r}; the columns are {', '.join(column_names(table, path))}"
            )
    try:
        rows = collected(table.select(pl.col(name).cast(dtype) for name, dtype in wanted.items()))
    except pl.exceptions.PolarsError as error:
        raise DataError(path, f"position must be a whole number, probability a number: {error}") from None
    rows = rows.rename({"request_id": "event_id"})
    odd = rows.filter(~pl.col("probability").is_between(0.0, 1.0).fill_null(value=False))
    if len(odd):
        raise DataError(path, "must be in [0, 1]", column="probability", value=odd["probability"][0])
    key = ["event_id", "position"]
    twice = rows.filter(rows.select(*key, "item_id").is_duplicated())
    if len(twice):
        raise DataError(path, f"stands twice at place {twice['position'][0]} of {twice['event_id'][0]}",
                        column="item_id", value=twice["item_id"][0])  # fmt: skip
    totals = rows.group_by(key).agg(pl.col("probability").sum().alias("total"))
    over = totals.filter(pl.col("total") > 1 + 1e-6)
    if len(over):
        row = over.row(0, named=True)
        raise DataError(path, f"place {row['position']} of {row['event_id']} adds up to {row['total']:.6g}")
    slots = explored.slots.with_columns(pl.col("position").cast(pl.Int64))
    shown = slots.join(rows, on=[*key, "item_id"], how="left", maintain_order="left")
    probability = shown["probability"].fill_null(0.0).to_numpy()
    whole = slots.join(totals, on=key, how="left")["total"].fill_null(0.0).min()
    expected = None
    if isinstance(whole, float) and whole > 1 - 1e-6:
        told = slots.select(*key, "fold").join(rows, on=key)
        more = [p * model.item(f, i) for f, i, p in told.select("fold", "item_id", "probability").iter_rows()]
        sums = (
            told.select(*key, pl.Series("more", more, dtype=pl.Float64))
            .group_by(key)
            .agg(pl.col("more").sum())
        )
        above = slots.join(sums, on=key, how="left", maintain_order="left")["more"].to_numpy()
        expected = _places(explored, model) + above
    return Target(probability, _logged(explored, model), expected)


def of_plan(
    plan: Plan, events: pl.LazyFrame, explored: Explored, model: RewardModel, live: LiveBundle
) -> Target:
    """Replay every explored slate by another plan of a bundle, with what its user had done until then.

    What a request filtered by is not in the log: where requests have filters, this target ignores them.
    """
    pool = max(plan.n_candidates, 1)
    # Chance is put back below, as probabilities.
    certain = replace(plan, exploration=None)
    kinds = live.bundle.manifest.user_id_kind, live.bundle.manifest.item_id_kind
    histories = _histories(events, explored, kinds[1])
    probability, more = [], []
    rows = explored.slots.select("event_id", "user_id", "timestamp_ms", "item_id", "fold").iter_rows()
    slates = groupby(rows, itemgetter(0))
    for _, group in ticking(slates, "replaying", shown=True):
        places = list(group)
        _, user, at, _, fold = places[0]
        times, items = histories.get(user, ((), ()))
        query = Query(
            _identifier(user, kinds[0]), max(len(places), pool), recent=tuple(items[: bisect_left(times, at)])
        )
        slate = _ranked(query, certain, len(places), live)
        for p, above in _chances(plan, slate, [place[3] for place in places], fold, model):
            probability.append(p)
            more.append(above)
    return Target(np.array(probability), _logged(explored, model), _places(explored, model) + np.array(more))


def _ranked(query: Query, plan: Plan, k: int, live: LiveBundle) -> Slate:
    """All that exploration may show, in the order that it finds: reranked are the first k, behind them is the rest."""
    whole = recommend(query, replace(plan, reranking=None), live, Deadline.none())
    if plan.reranking is None:
        return whole
    score_of = dict(zip(whole.item_ids, whole.scores, strict=True))
    first = recommend(replace(query, k=k), plan, live, Deadline.none())
    order = dict.fromkeys([item for item in first.item_ids if item in score_of] + whole.item_ids)
    return replace(whole, item_ids=list(order), scores=[score_of[item] for item in order])


def _chances(
    plan: Plan, ranked: Slate, shown: Sequence[str], fold: int, model: RewardModel
) -> Iterator[tuple[float, float]]:
    """For each place: probability of the logged item, and what the target's choice earns more than the place.

    ranked: the plan's answer with nothing left to chance, as long as its pool.
    """
    names = [str(item) for item in ranked.item_ids]
    left = np.ones(len(names), np.bool_)
    above = np.array([model.item(fold, name) for name in names])
    row_of = {name: row for row, name in enumerate(names)}
    # What the fallback adds is not the model's to explore.
    pool = min(max(len(shown), plan.n_candidates), ranked.n_personal)
    wide = np.array(ranked.scores[:pool], np.float64)
    deviation = float(wide.std()) if pool else 0.0
    standardised = (wide - wide.mean()) / deviation if 0 < deviation < np.inf else np.zeros(pool)
    for item in shown:
        chances = _of_place(plan, standardised, left)
        row = row_of.get(item)
        yield (0.0 if row is None else float(chances[row])), float(chances @ above)
        if row is not None:
            left[row] = False


def _of_place(plan: Plan, standardised: Floats, left: npt.NDArray[np.bool_]) -> Floats:
    """Probability of every item at a place, as the service explores.

    standardised: float64 (pool,), scores of the leading items, those that may be explored. left: items not placed yet.
    """
    chances: Floats = np.zeros(len(left))
    remaining = np.flatnonzero(left[: len(standardised)])
    if plan.exploration is None or not len(remaining):
        chances[np.flatnonzero(left)[:1]] = 1.0
    elif plan.exploration.kind == "epsilon":
        chances[remaining] = plan.exploration.strength / len(remaining)
        chances[remaining[0]] += 1.0 - plan.exploration.strength
    else:
        scaled = standardised[remaining] / plan.exploration.strength
        weights = np.exp(scaled - scaled.max())
        chances[remaining] = weights / weights.sum()
    return chances


def _histories(
    events: pl.LazyFrame, explored: Explored, kind: IdKind
) -> Mapping[str, tuple[list[int], list[ItemId]]]:
    """By user: times and items of their feedback, oldest first."""
    users = explored.slots.select(pl.col("user_id").unique()).lazy()
    rows = collected(
        events.filter(pl.col("type").is_in(_COUNTED), pl.col("item_id").is_not_null())
        .select("user_id", "timestamp_ms", "item_id")
        .join(users, on="user_id", how="semi")
    ).sort("user_id", "timestamp_ms", maintain_order=True)
    found: dict[str, tuple[list[int], list[ItemId]]] = {}
    for user, at, item in rows.iter_rows():
        times, items = found.setdefault(user, ([], []))
        times.append(at)
        items.append(_identifier(item, kind))
    return found


def _identifier(text: str, kind: IdKind) -> UserId | ItemId:
    if kind == "str":
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--events: id {text!r}: the bundle's ids are whole numbers") from None


def _logged(explored: Explored, model: RewardModel) -> Floats:
    rows = explored.slots.select("fold", "position", "item_id").iter_rows()
    return np.array([model.place(fold, place) + model.item(fold, item) for fold, place, item in rows])


def _places(explored: Explored, model: RewardModel) -> Floats:
    return np.array([model.place(*row) for row in explored.slots.select("fold", "position").iter_rows()])
