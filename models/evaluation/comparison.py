"""Two bundles, or two models of one, asked for the same users: which is better, for whom, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.beyond_accuracy import coverage
from models.evaluation.bootstrap import PerUser, confidence_intervals
from models.evaluation.held_out import HeldOut, IdArray, ItemCodes, training_of_bundle
from models.evaluation.metrics import Codes, accuracy, as_ranking, hits
from models.evaluation.replay import Replay, replay
from service.bundle.ids import UNKNOWN
from service.bundle.reader import Bundle
from service.domain import ItemId, UserId
from service.errors import InputError
from service.recommender.live import LiveBundle
from service.recommender.plan import plan_for

Floats = npt.NDArray[np.float64]
HEAD = "NDCG"
"""Whose difference makes a user a winner or a loser."""
_LENGTHS = ((0, 0), (1, 4), (5, 19), (20, 99), (100, None))
"""Histories by their length in the first bundle."""
_LEAST = 10
"""Smaller groups are told of in nothing but their size."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. replay: its answers to the users; ranking: their codes, int64 (n_users, k)."""

    live: LiveBundle
    model: str
    replay: Replay
    ranking: Codes

    @property
    def name(self) -> str:
        """Model and bundle."""
        return f"{self.model} of {self.live.bundle_id}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of both, and the second less the first with its 95% interval (paired bootstrap over users)."""

    first: float
    second: float
    effect: float
    lower: float
    upper: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lower > 0 or self.upper < 0

    @property
    def lift(self) -> float | None:
        """The effect as a share of the first's figure; None where that is 0."""
        return self.effect / self.first if self.first else None

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values."""
        numbers = {
            key: round(getattr(self, key), 5) for key in ("first", "second", "effect", "lower", "upper")
        }
        lift = None if self.lift is None else round(self.lift, 5)
        return {**numbers, "lift": lift, "significant": self.significant}


@dataclass(frozen=True, slots=True)
class Cohort:
    """Some of the users. won, lost: those for whom the second has the higher, the lower NDCG. difference: of the NDCG;
    None for fewer than 10 users."""

    kind: str
    name: str
    users: int
    won: int
    lost: int
    difference: Difference | None

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values."""
        told = None if self.difference is None else self.difference.as_json()
        counts = {"users": self.users, "won": self.won, "lost": self.lost}
        return {"kind": self.kind, "name": self.name, **counts, "difference": told}


@dataclass(frozen=True, slots=True)
class Example:
    """A user's two lists, and what they went on to do. hits: per place, whether it is among that."""

    why: str
    user_id: UserId
    history: tuple[str, ...]
    truth: tuple[str, ...]
    first: tuple[tuple[str, bool], ...]
    second: tuple[tuple[str, bool], ...]
    effect: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """overlap: mean share of the first k places that both name, with its interval."""

    first: Side
    second: Side
    k: int
    users: int
    test_rows: int
    metrics: Mapping[str, Difference]
    coverage: tuple[float, float]
    overlap: tuple[float, float, float]
    cohorts: tuple[Cohort, ...]
    examples: tuple[Example, ...]

    def as_json(self) -> dict[str, Any]:
        """One JSON-ready object."""
        return {
            "first": {"bundle": self.first.live.bundle_id, "model": self.first.model},
            "second": {"bundle": self.second.live.bundle_id, "model": self.second.model},
            "k": self.k,
            "users": self.users,
            "test_rows": self.test_rows,
            "metrics": {name: one.as_json() for name, one in self.metrics.items()},
            f"coverage@{self.k}": [round(value, 5) for value in self.coverage],
            f"overlap@{self.k}": {
                key: round(value, 5)
                for key, value in zip(("mean", "lower", "upper"), self.overlap, strict=True)
            },
            "cohorts": [cohort.as_json() for cohort in self.cohorts],
        }


def compare(
    lives: tuple[LiveBundle, LiveBundle],
    models: tuple[str, str],
    user_ids: Sequence[UserId] | IdArray,
    item_ids: Sequence[ItemId] | IdArray,
    *,
    k: int = 10,
    examples: int = 6,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Ask both lines for the users of held-out (user, item) rows, and pair what comes, user by user.

    Raises InputError where the bundles' ids are of other kinds, or there are no rows; ModelNotFound.
    """
    first, second = (live.bundle.manifest for live in lives)
    if (first.user_id_kind, first.item_id_kind) != (second.user_id_kind, second.item_id_kind):
        raise InputError("the two bundles have ids of other kinds: they know no common users or items")
    codes = ItemCodes(lives[0].bundle.item_ids)
    held_out = HeldOut.of(user_ids, item_ids, codes)
    sides = tuple(
        _side(live, model, held_out, codes, k, progress) for live, model in zip(lives, models, strict=True)
    )
    values = [accuracy(side.ranking, held_out.relevant, k) for side in sides]
    gains = values[1][f"{HEAD}@{k}"] - values[0][f"{HEAD}@{k}"]
    overlap = PerUser.mean_of(_overlap(sides[0].ranking, sides[1].ranking, k))
    low, high = confidence_intervals({"": overlap}, seed=seed)[""]
    training = training_of_bundle(lives[0].bundle)
    return Comparison(
        sides[0],
        sides[1],
        k,
        len(held_out.user_ids),
        held_out.n_rows,
        _differences(values[0], values[1], seed),
        (coverage(sides[0].ranking, training.catalogue), coverage(sides[1].ranking, training.catalogue)),
        (overlap.value, low, high),
        tuple(_cohorts(lives[0], held_out.user_ids, values, k, seed)),
        tuple(_examples(sides, held_out, codes, gains, examples, seed)),
    )


def _side(live: LiveBundle, model: str, held_out: HeldOut, codes: ItemCodes, k: int, progress: bool) -> Side:
    answers = replay(live, plan_for(model, live), held_out.user_ids, k=k, progress=progress)
    return Side(live, answers.model, answers, as_ranking(codes.table(answers.item_ids, k)))


def _differences(
    first: Mapping[str, Floats], second: Mapping[str, Floats], seed: int
) -> dict[str, Difference]:
    paired = {name: PerUser.mean_of(second[name] - first[name]) for name in first}
    intervals = confidence_intervals(paired, seed=seed)
    return {
        name: Difference(
            float(first[name].mean()), float(second[name].mean()), paired[name].value, *intervals[name]
        )
        for name in first
    }


def _overlap(first: Codes, second: Codes, k: int) -> Floats:
    """Share of k that both lists name, float64 (n_users,)."""
    shared = (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]
    overlap: Floats = shared.any(axis=2).sum(axis=1) / k
    return overlap


def _cohorts(
    live: LiveBundle, user_ids: list[UserId], values: Sequence[Mapping[str, Floats]], k: int, seed: int
) -> list[Cohort]:
    """Groups by the length of the history and by segment, both as the first bundle has them."""
    bundle = live.bundle
    rows = bundle.user_ids.rows_of(user_ids).astype(np.int64)
    known = rows != UNKNOWN
    lengths = np.zeros(len(rows), np.int64)
    lengths[known] = np.diff(np.asarray(bundle.history_indptr))[rows[known]]
    groups: list[tuple[str, str, npt.NDArray[np.bool_]]] = []
    for least, most in _LENGTHS:
        name = f"{least}" if most == least else f"{least}+" if most is None else f"{least}-{most}"
        groups.append(("history", name, (lengths >= least) & (lengths <= (np.inf if most is None else most))))
    popular = bundle.models["popular"]
    names = [str(name) for name in popular.entry.parameters.get("segments") or ()]
    segments = np.zeros(len(rows), np.int64)
    segments[known] = np.asarray(popular.arrays["user_segment"])[rows[known]]
    if len(names) > 1:
        groups += [("segment", name, segments == code) for code, name in enumerate(names)]
    name = f"{HEAD}@{k}"
    found: list[Cohort] = []
    for kind, group, mask in groups:
        n = int(mask.sum())
        if not n:
            continue
        first, second = values[0][name][mask], values[1][name][mask]
        told = _differences({name: first}, {name: second}, seed)[name] if n >= _LEAST else None
        found.append(Cohort(kind, group, n, int((second > first).sum()), int((second < first).sum()), told))
    return found


def _examples(
    sides: Sequence[Side], held_out: HeldOut, codes: ItemCodes, gains: Floats, count: int, seed: int
) -> list[Example]:
    """Users who gain most, who lose most, and some drawn from all."""
    if not count:
        return []
    each = max(1, count // 3)
    order = np.argsort(gains, kind="stable")
    drawn = np.random.default_rng(seed).permutation(len(gains))
    chosen: dict[int, str] = {}
    for rows, why in (
        ([row for row in order[::-1].tolist() if gains[row] > 0], "gains most"),
        ([row for row in order.tolist() if gains[row] < 0], "loses most"),
        (drawn.tolist(), "drawn"),
    ):
        left = [row for row in rows if row not in chosen]
        chosen |= dict.fromkeys(left[:each], why)
    return [
        _example(sides, held_out, codes, row, why, float(gains[row]))
        for row, why in list(chosen.items())[:count]
    ]


def _example(
    sides: Sequence[Side], held_out: HeldOut, codes: ItemCodes, row: int, why: str, gain: float
) -> Example:
    relevant = held_out.relevant
    begin, end = int(relevant.indptr[row]), int(relevant.indptr[row + 1])
    bundles = [side.live.bundle for side in sides]
    user = held_out.user_ids[row]
    user_row = bundles[0].user_ids.row_of(user)
    history: list[ItemId] = []
    if user_row != UNKNOWN:
        history = bundles[0].item_ids.take(bundles[0].history_of(user_row)[::-1][:10])
    lists = []
    for side in sides:
        right = hits(side.ranking[row : row + 1], relevant.select(np.array([row])))[0].tolist()
        items = side.replay.item_ids[row]
        lists.append(tuple((_title(item, bundles), hit) for item, hit in zip(items, right, strict=False)))
    truth = codes.decode(relevant.items[begin:end][:10])
    return Example(
        why,
        user,
        tuple(_title(item, bundles) for item in history),
        tuple(_title(item, bundles) for item in truth),
        lists[0],
        lists[1],
        gain,
    )


def _title(item: ItemId, bundles: Sequence[Bundle]) -> str:
    for bundle in bundles:
        row = bundle.item_ids.row_of(item)
        if row != UNKNOWN and bundle.titles is not None and bundle.titles[row]:
            return bundle.titles[row]
    return str(item)
