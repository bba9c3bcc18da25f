"""Evaluates models of a live bundle: replay, score, and say how sure the scores are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from models.evaluation.beyond_accuracy import (
    Training,
    average_popularity,
    average_recommendation_popularity,
    coverage,
    gini,
    intra_list_diversity,
    long_tail_share,
    miuf,
    novelty,
    rarity,
    serendipity,
    user_coverage,
)
from models.evaluation.bootstrap import PerUser, confidence_intervals
from models.evaluation.competition import leaderboard_map
from models.evaluation.held_out import HeldOut, IdArray, ItemCodes, training_of_bundle
from models.evaluation.metrics import Codes, accuracy, as_ranking, hits
from models.evaluation.replay import COHORTS, SOURCES, Replay, replay
from service.bundle.reader import Bundle
from service.domain import ItemId, UserId
from service.recommender.live import LiveBundle
from service.recommender.plan import plan_for

GENRE_ATTRIBUTES = ("genres", "genre")
"""Item attributes whose one-hots intra-list diversity is measured on, the preferred first."""
DIGITS = 5


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the users, and the metrics over them alone."""

    users: int
    metrics: Mapping[str, float]
    ci: Mapping[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """Flat: the count, then the metrics, then their intervals."""
        return {"users": self.users, **_rounded(self.metrics), "ci": _rounded_pairs(self.ci)}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's metrics by name (`NDCG@10`), 95% intervals by the same names, and the replay they come from.

    `coverage` and `Gini` are of a population, not means over users: they carry no interval.
    """

    model: str
    bundle_id: str
    ks: tuple[int, ...]
    users: int
    test_rows: int
    metrics: dict[str, float]
    ci: dict[str, tuple[float, float]]
    by_cohort: Mapping[str, Group]
    by_source: Mapping[str, Group]
    exposure: Codes
    """int64 (n_codes,): how often each item was recommended."""
    replay: Replay

    @property
    def users_with_recs(self) -> int:
        """Users who got at least one item."""
        return sum(1 for items in self.replay.item_ids if items)

    def as_json(self) -> dict[str, Any]:
        """One JSON-ready object, metrics rounded to 5 decimals."""
        microseconds = 1e6 * np.quantile(self.replay.seconds, [0.5, 0.95, 0.99])
        return {
            "model": self.model,
            "bundle": self.bundle_id,
            "users": self.users,
            "test_rows": self.test_rows,
            "users_with_recs": self.users_with_recs,
            **_rounded(self.metrics),
            "ci": _rounded_pairs(self.ci),
            "by_cohort": {name: group.as_json() for name, group in self.by_cohort.items()},
            "by_source": {name: group.as_json() for name, group in self.by_source.items()},
            "place_share_by_source": _rounded(self.replay.place_shares()),
            "degraded_users": sum(1 for stages in self.replay.degraded if stages),
            "replay_us": {
                name: round(float(value), 1)
                for name, value in zip(("p50", "p95", "p99"), microseconds, strict=True)
            },
        }


@dataclass(frozen=True, slots=True)
class Examiner:
    """What every model of a bundle is measured against: held-out rows, training popularity, genres.

    one_hots: 0/1 (n_items, n_genres), None where the catalogue has no genres.
    """

    codes: ItemCodes
    held_out: HeldOut
    training: Training
    one_hots: sp.csr_matrix | None

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        test_user_ids: Sequence[UserId] | IdArray,
        test_item_ids: Sequence[ItemId] | IdArray,
        *,
        codes: ItemCodes | None = None,
        training: Training | None = None,
    ) -> Examiner:
        """Prepare once for all models. `training`, made with `codes`, replaces the bundle's own history."""
        codes = codes or ItemCodes(bundle.item_ids)
        held_out = HeldOut.of(test_user_ids, test_item_ids, codes)
        return cls(codes, held_out, training or training_of_bundle(bundle), genre_one_hots(bundle))

    def examine(
        self, live: LiveBundle, model_name: str, ks: Sequence[int], *, progress: bool = False
    ) -> Evaluation:
        """Replay the held-out users once, at the largest k; smaller ks are heads of the same lists."""
        answers = replay(
            live, plan_for(model_name, live), self.held_out.user_ids, k=max(ks), progress=progress
        )
        return self.score(answers, ks, live.bundle_id)

    def score(self, answers: Replay, ks: Sequence[int], bundle_id: str) -> Evaluation:
        """Measure a replay of exactly the held-out users, in their order."""
        ranking = as_ranking(self.codes.table(answers.item_ids, max(ks)))
        per_user: dict[str, PerUser] = {}
        whole: dict[str, float] = {}
        for k in ks:
            per_user |= self._per_user(ranking[:, :k], answers.item_ids, k)
            whole |= self._of_population(ranking[:, :k], k)
        shown = ranking[ranking >= 0]

        def by(names: Sequence[str], column: Sequence[str]) -> dict[str, Group]:
            own = {name: np.flatnonzero(np.array(column) == name) for name in names}
            return {name: self._group(per_user, ranking, ks, rows) for name, rows in own.items() if len(rows)}

        return Evaluation(
            model=answers.model,
            bundle_id=bundle_id,
            ks=tuple(ks),
            users=len(ranking),
            test_rows=self.held_out.n_rows,
            metrics=_values(per_user, whole),
            ci=confidence_intervals(per_user),
            by_cohort=by(COHORTS, answers.cohorts),
            by_source=by(SOURCES, answers.sources),
            exposure=np.bincount(shown, minlength=len(self.codes)).astype(np.int64),
            replay=answers,
        )

    def _per_user(self, ranking: Codes, item_ids: list[list[ItemId]], k: int) -> dict[str, PerUser]:
        relevant, training = self.held_out.relevant, self.training
        metrics = {name: PerUser.mean_of(values) for name, values in accuracy(ranking, relevant, k).items()}
        truth = self.codes.decode(relevant.items)
        true_items = [truth[a:b] for a, b in zip(relevant.indptr[:-1], relevant.indptr[1:], strict=True)]
        lists = [items[:k] for items in item_ids]
        metrics |= {
            f"MAP_leaderboard@{k}": PerUser.mean_of(leaderboard_map(lists, true_items)),
            f"avgpop@{k}": average_popularity(ranking, training),
            f"novelty@{k}": novelty(ranking, training),
            f"MIUF@{k}": miuf(ranking, training),
            f"Serendipity@{k}": serendipity(ranking, hits(ranking, relevant), training, k),
            f"ARP@{k}": average_recommendation_popularity(ranking, training),
            f"APLT@{k}": long_tail_share(ranking, training),
            f"Rarity@{k}": rarity(ranking, training),
            f"user_coverage@{k}": user_coverage(ranking),
        }
        if self.one_hots is not None:
            metrics[f"ILD@{k}"] = intra_list_diversity(ranking, self.one_hots)
        return metrics

    def _of_population(self, ranking: Codes, k: int) -> dict[str, float]:
        return {
            f"coverage@{k}": coverage(ranking, self.training.catalogue),
            f"Gini@{k}": gini(ranking, self.training),
        }

    def _group(self, per_user: dict[str, PerUser], ranking: Codes, ks: Sequence[int], users: Codes) -> Group:
        own = {name: metric.select(users) for name, metric in per_user.items()}
        whole = {
            name: value for k in ks for name, value in self._of_population(ranking[users, :k], k).items()
        }
        return Group(len(users), _values(own, whole), confidence_intervals(own))


def evaluate_model(
    live: LiveBundle,
    model_name: str,
    test_user_ids: Sequence[UserId] | IdArray,
    test_item_ids: Sequence[ItemId] | IdArray,
    *,
    k: int | Sequence[int] = 10,
    progress: bool = False,
) -> Evaluation:
    """Replay the users of held-out (user, item) rows through the serving line and score the answers.

    Unknown users and items count: the user is asked for, the item is relevant. Popularity, novelty and
    coverage rest on the bundle's history. Raises ModelNotFound; InputError where there are no rows.
    """
    ks = [k] if isinstance(k, int) else list(k)
    return Examiner.of(live.bundle, test_user_ids, test_item_ids).examine(
        live, model_name, ks, progress=progress
    )


def genre_one_hots(bundle: Bundle) -> sp.csr_matrix | None:
    """0/1 CSR (n_items, n_genres) of the catalogue's genre attribute, None where it has none."""
    name = next((name for name in GENRE_ATTRIBUTES if name in bundle.attributes), None)
    if name is None:
        return None
    attribute = bundle.attributes[name]
    ones = np.ones(len(attribute.codes))
    shape = (len(attribute.indptr) - 1, len(attribute.values))
    table = sp.csr_matrix((ones, np.asarray(attribute.codes), np.asarray(attribute.indptr)), shape=shape)
    table.sum_duplicates()
    table.data[:] = 1.0
    return table


def _values(per_user: Mapping[str, PerUser], whole: Mapping[str, float]) -> dict[str, float]:
    values = {name: metric.value for name, metric in per_user.items()} | dict(whole)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _rounded(metrics: Mapping[Any, float]) -> dict[str, float]:
    return {str(name): round(value, DIGITS) for name, value in metrics.items()}


def _rounded_pairs(intervals: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: [round(low, DIGITS), round(high, DIGITS)] for name, (low, high) in intervals.items()}
