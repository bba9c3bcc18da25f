"""Replays users through the serving line: what is measured and submitted here is what would be served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.forked import Answer, answers, cores, shares
from models.progress import advancing, ticking
from service.bundle.ids import UNKNOWN
from service.domain import Deadline, ItemFilter, ItemId, Plan, Query, Source, UserId
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend

Cohort = Literal["warm", "fold_in", "cold"]
COHORTS: tuple[Cohort, ...] = ("warm", "fold_in", "cold")
SOURCES: tuple[Source, ...] = ("personal", "fold_in", "features", "segment_popular", "popular")

_WORTH_FORKING = 400
"""Users that are asked in as many processes as there are cores; fewer are asked sooner in this one."""
_PARTS = 4
"""Of the users, a core: those who are dear to answer stand together now and then."""


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

    Many users are asked in forked processes, a core each: the answers are the same, `seconds` those of busy cores.
    Raises ModelNotFound.
    """
    model = live.resolve(plan.model).name
    users = list(user_ids)
    parts = shares(len(users), _PARTS * cores() if len(users) >= _WORTH_FORKING else 1)

    def ask(part: slice) -> Answer:
        return _asked(live, plan, users[part], k, exclude_seen, among, progress and len(parts) == 1)

    with advancing(f"replay {model}", len(parts), progress and len(parts) > 1) as advance:
        found = answers([partial(ask, part) for part in parts], on_done=lambda *_: advance())
    # One object an item however often it is recommended: a million users' lists fit in memory.
    all_ids = live.bundle.item_ids.take(np.arange(len(live.bundle.item_ids)))
    item_ids: list[list[ItemId]] = []
    sources: list[Source] = []
    top_ups: list[Source] = []
    degraded: list[tuple[str, ...]] = []
    for one in found:
        listed = [all_ids[row] for row in one.arrays["items"].tolist()]
        ends = one.arrays["lengths"].cumsum().tolist()
        item_ids += [listed[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        sources += [SOURCES[code] for code in one.arrays["sources"].tolist()]
        top_ups += [SOURCES[code] for code in one.arrays["top_ups"].tolist()]
        stages = [tuple(names) for names in one.facts]
        degraded += [stages[code] for code in one.arrays["degraded"].tolist()]
    return Replay(
        model,
        k,
        users,
        item_ids,
        sources,
        top_ups,
        _joined(found, "n_personal", np.int64),
        cohorts_of(live, model, users),
        degraded,
        _joined(found, "seconds", np.float64),
    )


def _asked(
    live: LiveBundle,
    plan: Plan,
    users: Sequence[UserId],
    k: int,
    exclude_seen: bool,
    among: ItemFilter | None,
    progress: bool,
) -> Answer:
    """Ask for some users, one after the other. Their items as rows of the catalogue, the rest as codes.

    facts: the tuples of stages that `degraded` is coded by.
    """
    lists: list[list[ItemId]] = []
    codes = np.empty((3, len(users)), np.int32)
    stages: dict[tuple[str, ...], int] = {}
    n_personal, seconds = np.empty(len(users), np.int64), np.empty(len(users), np.float64)
    for place, user_id in enumerate(ticking(users, "replay", progress)):
        query = Query(user_id, k, filter=among, exclude_seen=exclude_seen)
        deadline = Deadline.none()
        started = time.perf_counter()
        slate = recommend(query, plan, live, deadline)
        seconds[place] = time.perf_counter() - started
        lists.append(slate.item_ids)
        codes[:, place] = (
            SOURCES.index(slate.source),
            SOURCES.index(slate.top_up),
            stages.setdefault(slate.degraded, len(stages)),
        )
        n_personal[place] = slate.n_personal
    rows = live.bundle.item_ids.rows_of([item for items in lists for item in items])
    return Answer(
        list(stages),
        {
            "items": rows,
            "lengths": np.array([len(items) for items in lists], np.int64),
            "sources": codes[0],
            "top_ups": codes[1],
            "degraded": codes[2],
            "n_personal": n_personal,
            "seconds": seconds,
        },
    )


def _joined(found: Sequence[Answer], name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(one.arrays[name] for one in found)])


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
