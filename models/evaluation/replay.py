"""Replays users through the serving line: what is measured and submitted here is what would be served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.progress import ticking
from service.bundle.ids import UNKNOWN
from service.domain import Deadline, ItemFilter, ItemId, Plan, Query, Source, UserId
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend

Cohort = Literal["warm", "fold_in", "cold"]
COHORTS: tuple[Cohort, ...] = ("warm", "fold_in", "cold")
SOURCES: tuple[Source, ...] = ("personal", "fold_in", "features", "segment_popular", "popular")


@dataclass(frozen=True, slots=True)
class Replay:
    """Answers to users, one entry a user, in the order asked.

    seconds: float64 (n,), time in the line. n_personal: int64 (n,), leading places of the model itself.
    """

    model: str
    k: int
    user_ids: list[UserId]
    item_ids: list[list[ItemId]]
    sources: list[Source]
    top_ups: list[Source]
    n_personal: npt.NDArray[np.int64]
    cohorts: list[Cohort]
    degraded: list[tuple[str, ...]]
    seconds: npt.NDArray[np.float64]

    def place_shares(self) -> dict[Source, float]:
        """Share of all recommended places by source, of the sources that gave any."""
        places = dict.fromkeys(SOURCES, 0)
        for items, source, top_up, leading in zip(
            self.item_ids, self.sources, self.top_ups, self.n_personal.tolist(), strict=True
        ):
            places[source] += leading
            places[top_up] += len(items) - leading
        total = sum(places.values())
        return {source: count / total for source, count in places.items() if count}


def replay(
    live: LiveBundle,
    plan: Plan,
    user_ids: Sequence[UserId],
    *,
    k: int,
    exclude_seen: bool = True,
    among: ItemFilter | None = None,
    progress: bool = False,
) -> Replay:
    """Ask the serving line for k items for each user, without a deadline; `among` says which may be answered.

    Raises ModelNotFound.
    """
    model = live.resolve(plan.model).name
    users = list(user_ids)
    # One object an item however often it is recommended: a million users' lists fit in memory.
    interned: dict[ItemId, ItemId] = {}
    item_ids: list[list[ItemId]] = []
    sources: list[Source] = []
    top_ups: list[Source] = []
    degraded: list[tuple[str, ...]] = []
    n_personal = np.empty(len(users), np.int64)
    seconds = np.empty(len(users), np.float64)
    for place, user_id in enumerate(ticking(users, f"replay {model}", progress)):
        query = Query(user_id, k, filter=among, exclude_seen=exclude_seen)
        deadline = Deadline.none()
        started = time.perf_counter()
        slate = recommend(query, plan, live, deadline)
        seconds[place] = time.perf_counter() - started
        item_ids.append([interned.setdefault(item, item) for item in slate.item_ids])
        sources.append(slate.source)
        top_ups.append(slate.top_up)
        degraded.append(slate.degraded)
        n_personal[place] = slate.n_personal
    cohorts = cohorts_of(live, model, users)
    return Replay(model, k, users, item_ids, sources, top_ups, n_personal, cohorts, degraded, seconds)


def cohorts_of(live: LiveBundle, model_name: str, user_ids: Sequence[UserId]) -> list[Cohort]:
    """Say what the model has of each user, whatever it then answered.

    warm: a trained vector (factors), a list (lists), or a history that the other kinds read as it is;
    fold_in: no vector, but a history from which one is solved; cold: neither.
    """
    bundle, data = live.bundle, live.resolve(model_name).data
    rows = bundle.user_ids.rows_of(user_ids).astype(np.int64)
    known = rows != UNKNOWN
    at = np.where(known, rows, 0)
    if len(bundle.user_ids) == 0:
        return ["cold"] * len(rows)
    has_history = known & (np.diff(bundle.history_indptr)[at] > 0)
    match data.entry.kind:
        case "factors":
            warm = known & np.isin(rows, data.arrays["user_rows"])
            with_vector = np.zeros(len(bundle.item_ids) + 1, np.int64)
            with_vector[np.asarray(data.arrays["item_rows"]) + 1] = 1
            # Running count of history items that have a vector: its rise over a span is how many it holds.
            vectors = np.zeros(len(bundle.history_items) + 1, np.int64)
            np.cumsum(with_vector[np.asarray(bundle.history_items, np.int64) + 1], out=vectors[1:])
            span = vectors[bundle.history_indptr[at + 1]] - vectors[bundle.history_indptr[at]]
            fold_in = known & ~warm & (span > 0)
        case "lists":
            warm = known & (np.diff(data.arrays["indptr"])[at] > 0)
            fold_in = np.zeros(len(rows), bool)
        case _:
            warm = has_history
            fold_in = np.zeros(len(rows), bool)
    return [
        "warm" if w else "fold_in" if f else "cold"
        for w, f in zip(warm.tolist(), fold_in.tolist(), strict=True)
    ]
