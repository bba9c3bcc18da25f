"""Explanations: what of a user's history a model's score of an item is made of.

`parts`: contributions that add up to the score, together with what no single item accounts for. `neighbours`: users
who share history with this one and have the item, for lists whose scores were made of such users. `alike`: history
items nearest to the item, where a score isn't a sum over the history. `popular`: the item's place among what is
popular, which is all there is to say to a user of whom the model knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.bundle.ids import UNKNOWN
from service.bundle.reader import Bundle
from service.domain import ItemId, ItemRows, Query
from service.errors import ItemNotFound
from service.recommender.filters import eligible
from service.recommender.live import LiveBundle, LiveModel
from service.recommender.ranking.attribution import RankerScore
from service.recommender.retrieval import FactorsRetriever, ItemItemRetriever
from service.recommender.user_state import UserState, user_state

Method = Literal["parts", "neighbours", "alike", "popular"]
MOST_HOLDERS = 2_000
"""Of the users who have an item so many are compared with the one who asks, evenly drawn."""
_SHARED = 2
"""Items in common that make two users neighbours."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """An item of the history and its part in the score (`parts`), or its cosine with the item (`alike`)."""

    item_id: ItemId
    title: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a model gives a user this score of an item. `score` is None where the model gives none.

    contributions: the largest first. remainder: of `parts`, the score less all contributions; else 0. neighbours,
    holders: users who share history with this one, and those of them who have the item. place: from 1, among what is
    popular in the user's segment; None where it isn't listed. ranker: a ranking model's own score by features;
    None where its pool of a plain request doesn't have the item.
    """

    item_id: ItemId
    title: str | None
    model: str
    method: Method
    score: float | None
    contributions: tuple[Contribution, ...] = ()
    remainder: float = 0.0
    neighbours: int = 0
    holders: int = 0
    place: int | None = None
    ranker: RankerScore | None = None


def explain(query: Query, item_id: ItemId, model_name: str, live: LiveBundle) -> Explanation:
    """Explain an item to a user, or to whoever has the query's history. Raises ItemNotFound and ModelNotFound."""
    model, bundle = live.resolve(model_name), live.bundle
    row = bundle.item_ids.row_of(item_id)
    if row == UNKNOWN:
        raise ItemNotFound(item_id)
    if model.ranking is not None:
        return _of_sources(query, row, model, live)
    user = user_state(query, bundle)
    found: Explanation | None = None
    retriever = model.retriever
    if isinstance(retriever, ItemItemRetriever):
        found = _of_sums(retriever, user, row, model, bundle)
    elif isinstance(retriever, FactorsRetriever):
        found = _of_factors(retriever, user, row, model, bundle)
    elif model.data.entry.kind == "lists":
        found = _of_lists(user, row, model, bundle)
    return found or _of_popularity(user, row, model, live)


def _of_sources(query: Query, row: int, model: LiveModel, live: LiveBundle) -> Explanation:
    """A ranker's order is explained by the first of its sources to which the user's history speaks for the item.

    The score and its parts are that source's, and so is the `model` that is named; the ranker's stand in `ranker`.
    """
    assert model.ranking is not None  # the caller looked
    item_id, _ = _named(row, live.bundle)
    found = [explain(query, item_id, name, live) for name in model.ranking.gatherer.sources]
    told = next((one for one in found if one.method != "popular"), found[0])
    user = user_state(query, live.bundle)
    return replace(told, ranker=model.ranking.attribute(user, row, eligible(query, user, live.bundle)))


def _of_sums(
    retriever: ItemItemRetriever, user: UserState, row: int, model: LiveModel, bundle: Bundle
) -> Explanation | None:
    """Each item of the history adds its row's entry, weighed by its recency."""
    if len(user.history) == 0:
        return None
    parts = retriever.parts(user.history, row)
    if not parts.any():
        return None
    return _parts(
        user.history[len(user.history) - len(parts) :], parts, float(parts.sum()), row, model, bundle
    )


def _of_factors(
    retriever: FactorsRetriever, user: UserState, row: int, model: LiveModel, bundle: Bundle
) -> Explanation | None:
    place = int(retriever.position_of[row])
    vector = retriever.users.of(user)
    if place < 0 or vector is None:
        return None
    target = model.data.arrays["item_vectors"][place]
    score = float(vector[0] @ target)
    if model.data.entry.space == "l2":
        difference = vector[0] - target
        score = -float(difference @ difference)
    positions = retriever.position_of[user.history]
    known = positions >= 0
    history, positions = user.history[known], positions[known]
    if len(positions) == 0:
        return _explanation(row, model, bundle, "alike", score)
    parts = retriever.users.parts(vector[1], positions, target)
    if parts is not None:
        return _parts(history, parts, score, row, model, bundle)
    vectors = model.data.arrays["item_vectors"][positions].astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * float(np.linalg.norm(target))
    cosines = (vectors @ target) / np.where(lengths > 0, lengths, 1.0)
    return _explanation(row, model, bundle, "alike", score, _contributions(history, cosines, bundle))


def _of_lists(user: UserState, row: int, model: LiveModel, bundle: Bundle) -> Explanation | None:
    """Count the users who share history with this one, and those of them who have the item."""
    arrays = model.data.arrays
    score = None
    if user.row >= 0:
        begin, end = int(arrays["indptr"][user.row]), int(arrays["indptr"][user.row + 1])
        listed = np.flatnonzero(arrays["items"][begin:end] == row)
        score = float(arrays["scores"][begin + listed[0]]) if len(listed) else None
    if len(user.history) == 0:
        return None
    others = _sharing(user, bundle)
    if not len(others):
        return None
    starts, ends = bundle.history_indptr[others], bundle.history_indptr[others + 1]
    has = [
        bool((bundle.history_items[a:b] == row).any())
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    if score is None and not any(has):
        return None
    return Explanation(
        *_named(row, bundle), model.name, "neighbours", score, neighbours=len(others), holders=sum(has)
    )


def _sharing(user: UserState, bundle: Bundle) -> npt.NDArray[np.int64]:
    """Rows of users with _SHARED items or more in common, MOST_HOLDERS at most."""
    mine = np.zeros(len(bundle.item_ids), np.bool_)
    mine[user.history] = True
    indptr = np.asarray(bundle.history_indptr)
    owners = np.searchsorted(indptr, np.flatnonzero(mine[np.asarray(bundle.history_items)]), side="right") - 1
    shared = np.bincount(owners, minlength=len(indptr) - 1)
    if user.row >= 0:
        shared[user.row] = 0
    others = np.flatnonzero(shared >= _SHARED)
    if len(others) > MOST_HOLDERS:
        others = others[np.linspace(0, len(others) - 1, MOST_HOLDERS).astype(np.int64)]
    return others


def _of_popularity(user: UserState, row: int, model: LiveModel, live: LiveBundle) -> Explanation:
    popular = live.popular
    place = popular.place_of(row, popular.segment_of(user))
    if place is None:
        place = popular.place_of(row, 0)
    score = None
    if model.data.entry.kind == "popular":
        score = popular.score_of(row, popular.segment_of(user))
    return Explanation(*_named(row, live.bundle), model.name, "popular", score, place=place)


def _parts(
    history: ItemRows,
    parts: npt.NDArray[np.float64],
    score: float,
    row: int,
    model: LiveModel,
    bundle: Bundle,
) -> Explanation:
    remainder = score - float(parts.sum())
    return _explanation(
        row, model, bundle, "parts", score, _contributions(history, parts, bundle), remainder=remainder
    )


def _contributions(
    history: ItemRows, weights: npt.NDArray[np.float64], bundle: Bundle
) -> tuple[Contribution, ...]:
    order = np.argsort(-weights, kind="stable")
    return tuple(
        Contribution(*_named(row, bundle), weight)
        for row, weight in zip(history[order].tolist(), weights[order].tolist(), strict=True)
    )


def _explanation(
    row: int,
    model: LiveModel,
    bundle: Bundle,
    method: Method,
    score: float,
    contributions: tuple[Contribution, ...] = (),
    *,
    remainder: float = 0.0,
) -> Explanation:
    return Explanation(*_named(row, bundle), model.name, method, score, contributions, remainder)


def _named(row: int, bundle: Bundle) -> tuple[ItemId, str | None]:
    (item_id,) = bundle.item_ids.take(np.array([row], np.int32))
    return item_id, None if bundle.titles is None else bundle.titles[row]
