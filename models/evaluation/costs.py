"""What serving costs in quality: searching approximately, dropping seen items, and falling back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.metrics import NOWHERE, Codes, accuracy, as_ranking
from models.evaluation.replay import Replay, replay
from models.evaluation.run import DIGITS, Evaluation, Examiner
from service.bundle.manifest import RetrieverName
from service.recommender.live import LiveBundle, go_live
from service.recommender.plan import plan_for
from service.recommender.retrieval import FactorsRetriever

_FALLBACK = ("segment_popular", "popular")


@dataclass(frozen=True, slots=True)
class SearchCost:
    """The model's index beside exact search, over the same users at the same k.

    index: `hnsw` or `ivf`; served: that or `exact`. `overlap`: share of the items in exact search's slates that the
    index's hold, over the users who were searched for at all. Seconds are medians over all users.
    """

    index: RetrieverName
    served: RetrieverName
    overlap: float
    exact: Mapping[str, float]
    indexed: Mapping[str, float]
    exact_seconds: float
    indexed_seconds: float


@dataclass(frozen=True, slots=True)
class FallbackCost:
    """What rests on the fallback.

    users: share of users whom it answered whole. places: share of all places it filled; topped_up_places: of
    those, the ones in slates that the model began. without: accuracy if its places had stayed empty.
    """

    users: float
    places: float
    topped_up_places: float
    without: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Costs:
    """At one k. `search` is None where the model has no index: its search is exact.

    `with_seen`: accuracy if seen items were let through. `fallback` is None where the model is popularity.
    """

    k: int
    served: Mapping[str, float]
    search: SearchCost | None
    with_seen: Mapping[str, float]
    fallback: FallbackCost | None

    def as_json(self) -> dict[str, Any]:
        """One JSON-ready object; a `delta` is served minus the alternative."""
        name = f"NDCG@{self.k}"

        def against(other: Mapping[str, float]) -> dict[str, float]:
            return {name: round(other[name], DIGITS), "delta": round(self.served[name] - other[name], DIGITS)}

        search: dict[str, Any] = {"served": "exact", f"overlap@{self.k}": 1.0}
        if self.search is not None:
            search = {
                "served": self.search.served,
                f"overlap@{self.k}": round(self.search.overlap, DIGITS),
                "exact": {
                    name: round(self.search.exact[name], DIGITS),
                    "us": round(1e6 * self.search.exact_seconds, 1),
                },
                self.search.index: {
                    name: round(self.search.indexed[name], DIGITS),
                    "us": round(1e6 * self.search.indexed_seconds, 1),
                },
                "delta": round(self.search.indexed[name] - self.search.exact[name], DIGITS),
            }
        return {
            "search": search,
            "seen_filter": {"without": against(self.with_seen)},
            "fallback": self.fallback
            and {
                "users_share": round(self.fallback.users, DIGITS),
                "places_share": round(self.fallback.places, DIGITS),
                "topped_up_places_share": round(self.fallback.topped_up_places, DIGITS),
                "without": against(self.fallback.without),
            },
        }


def measure_costs(
    examiner: Examiner, live: LiveBundle, evaluation: Evaluation, *, k: int, progress: bool = False
) -> Costs:
    """Replay the same users otherwise, and compare with the evaluation at k (one of its ks)."""
    answers = evaluation.replay
    users, relevant = examiner.held_out.user_ids, examiner.held_out.relevant

    def ask(bundle: LiveBundle, *, exclude_seen: bool = True) -> Replay:
        plan = plan_for(evaluation.model, live)
        return replay(bundle, plan, users, k=answers.k, exclude_seen=exclude_seen, progress=progress)

    def rank(replayed: Replay) -> Codes:
        return as_ranking(examiner.codes.table(replayed.item_ids, k))

    def scored(ranking: Codes) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in accuracy(ranking, relevant, k).items()}

    served = rank(answers)
    whole = np.array([source in _FALLBACK for source in answers.sources])
    search = None
    entry = live.resolve(evaluation.model).data.entry
    retriever = live.resolve(evaluation.model).retriever
    index = None if entry.retrieval is None else entry.retrieval.index
    if isinstance(retriever, FactorsRetriever) and index is not None:
        by_index = retriever.name == index
        other = ask(go_live(live.bundle, retriever="exact" if by_index else index))
        indexed, exact = (answers, other) if by_index else (other, answers)
        search = SearchCost(
            index=index,
            served=retriever.name,
            overlap=overlap(rank(indexed)[~whole], rank(exact)[~whole]),
            exact=scored(rank(exact)),
            indexed=scored(rank(indexed)),
            exact_seconds=float(np.median(exact.seconds)),
            indexed_seconds=float(np.median(indexed.seconds)),
        )
    fallback = None
    if entry.kind != "popular":
        places = (served != NOWHERE).sum(axis=1)
        own = np.minimum(np.where(whole, 0, answers.n_personal), places)
        total = max(int(places.sum()), 1)
        fallback = FallbackCost(
            users=float(whole.mean()),
            places=float((places - own).sum() / total),
            topped_up_places=float((places - own)[~whole].sum() / total),
            without=scored(np.where(np.arange(k) < own[:, None], served, NOWHERE)),
        )
    return Costs(
        k=k,
        served=scored(served),
        search=search,
        with_seen=scored(rank(ask(live, exclude_seen=False))),
        fallback=fallback,
    )


def overlap(found: Codes, exact: Codes) -> float:
    """Share of the items of `exact` that the same user's row of `found` holds; 1 where `exact` is empty."""
    wanted = exact != NOWHERE
    present = (exact[:, :, None] == found[:, None, :]).any(axis=2) & wanted
    return float(present.sum() / wanted.sum()) if wanted.any() else 1.0
