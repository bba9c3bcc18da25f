"""A bundle made live: retrievers built, golden queries answered, costs known. One reference serves a request."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from service.bundle.arrays import let_go
from service.bundle.reader import Bundle, Golden, ModelData
from service.domain import Candidates, Clock, ItemRows, Reranking
from service.errors import BundleRefused, ModelNotFound, StageUnavailable
from service.recommender.costs import StageCost
from service.recommender.filters import EVERYTHING, Eligible
from service.recommender.precomputed import KINDS, PrecomputedLists
from service.recommender.ranking.ranker import TwoStage
from service.recommender.ranking.warm_up import check_golden, warm_up
from service.recommender.retrieval import (
    FactorsRetriever,
    HnswRetriever,
    ItemItemRetriever,
    IvfRetriever,
    ListsRetriever,
    PopularRetriever,
    Retriever,
)
from service.recommender.user_state import UserState

RetrieverChoice = Literal["auto", "exact", "hnsw", "ivf"]
_TOLERANCE = 1e-3
_TOWER_TOLERANCE = 0.01
"""Of a vector's length: rounding in another runtime's order, no more."""
_WARM_UPS = 16
_SEARCHING = {kind.name: kind for kind in (FactorsRetriever, HnswRetriever, IvfRetriever)}
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A model ready to answer. `name` is the real one, also when asked for as `default`."""

    name: str
    data: ModelData
    retriever: Retriever
    retrieve_cost: StageCost
    recall_at_10: float
    """Of the retriever in use against exact search; 1.0 where retrieval is exact."""
    precomputed: PrecomputedLists | None = None
    """Candidates computed beforehand; None where every request is searched."""
    ranking: TwoStage | None = field(default=None, repr=False)
    """What gathers and ranks where the model has two stages; it is the retriever too."""
    rank_cost: StageCost = field(default_factory=StageCost, repr=False)
    rerank_costs: dict[tuple[Reranking, int], StageCost] = field(default_factory=dict, repr=False)
    """By settings and number of candidates: as many as there are plans. One that never ran is expected to be free."""

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """Up to n candidates, best first: from the list where it says the same, else by a search."""
        lists = self.precomputed
        if lists is not None:
            listed = lists.find(user, n, rules)
            if listed is not None:
                return listed
        return self.retriever.retrieve(user, n, rules)


@dataclass(frozen=True, slots=True, repr=False)
class LiveBundle:
    """The whole of what a request reads. `models` includes `default`."""

    bundle: Bundle = field(repr=False)
    models: Mapping[str, LiveModel] = field(repr=False)
    popular: PopularRetriever = field(repr=False)
    newcomers: ItemRows = field(default_factory=lambda: np.empty(0, np.int32), repr=False)
    """Item rows, ascending, of the items that nobody had an event with; none where there are no events at all."""

    def __repr__(self) -> str:
        return f"<LiveBundle {self.bundle_id}: {', '.join(sorted(self.models))}>"

    @property
    def bundle_id(self) -> str:
        """Identity of the content."""
        return self.bundle.manifest.bundle_id

    def resolve(self, name: str) -> LiveModel:
        """Find a model by the name in the URL. Raises ModelNotFound."""
        model = self.models.get(name)
        if model is None:
            raise ModelNotFound(name)
        return model


def go_live(
    bundle: Bundle, *, retriever: RetrieverChoice = "auto", clock: Clock = time.perf_counter
) -> LiveBundle:
    """Build the retrievers and prove them on the golden queries. Raises BundleRefused when an answer is wrong.

    `retriever` overrides what the build chose for factors models: `hnsw` where there is an index, `ivf` where there are
    cells, `exact` anywhere; and with any every request is searched, also where candidates were computed beforehand.
    """
    popular = PopularRetriever(bundle.models["popular"])
    models = {}
    for name, data in bundle.models.items():
        if data.entry.kind == "two_stage":
            continue  # made of the others
        built, recall = _retriever(data, bundle, retriever)
        if isinstance(built, FactorsRetriever):
            _check_golden(data, built, bundle)
            _check_tower(data, built, bundle)
        lists = _lists(data, built, bundle) if retriever == "auto" else None
        cost = StageCost(_warm_up(built, bundle, clock))
        models[name] = LiveModel(name, data, built, cost, recall, lists)
    made = dict(models)
    for name, data in bundle.models.items():
        if data.entry.kind == "two_stage":
            models[name] = _two_stage(data, bundle, made, clock)
    models["default"] = models[bundle.manifest.default_model]
    live = LiveBundle(bundle, models, popular, _newcomers(bundle))
    # All of it has been read for proof; what answers read comes back, and the rest is nobody's memory.
    for array in (bundle.history_indptr, bundle.history_items):
        let_go(array)
    for data in bundle.models.values():
        for array in data.arrays.values():
            let_go(array)
    return live


def _retriever(data: ModelData, bundle: Bundle, choice: RetrieverChoice) -> tuple[Retriever, float]:
    match data.entry.kind:
        case "popular":
            return PopularRetriever(data), 1.0
        case "item_item":
            return ItemItemRetriever(data, bundle), 1.0
        case "lists":
            return ListsRetriever(data), 1.0
        case "factors":
            retrieval = data.entry.retrieval
            assert retrieval is not None  # the reader refuses a factors model without it
            wanted = retrieval.retriever if choice == "auto" else choice
            promised = retrieval.recall_of(wanted)
            kind = FactorsRetriever if promised is None else _SEARCHING[wanted]
            return kind(data, bundle), 1.0 if promised is None else promised.at_10
        case "two_stage":
            raise ValueError(f"model {data.name!r} has no retriever of its own")


def _two_stage(data: ModelData, bundle: Bundle, models: Mapping[str, LiveModel], clock: Clock) -> LiveModel:
    ranking = TwoStage(data, bundle, {name: model.retriever for name, model in models.items()})
    check_golden(data, ranking, bundle)
    gathering, ranked = warm_up(ranking, bundle, clock)
    recall = min(models[name].recall_at_10 for name in ranking.gatherer.sources)
    return LiveModel(
        data.name, data, ranking, StageCost(gathering), recall, ranking=ranking, rank_cost=StageCost(ranked)
    )


def _newcomers(bundle: Bundle) -> ItemRows:
    if len(bundle.history_items) == 0:
        return np.empty(0, np.int32)
    known = np.zeros(len(bundle.item_ids), np.bool_)
    for first in range(0, len(bundle.history_items), _BLOCK):  # numpy widens what it indexes by
        known[bundle.history_items[first : first + _BLOCK]] = True
    newcomers: ItemRows = np.flatnonzero(~known).astype(np.int32)
    return newcomers


def _check_golden(data: ModelData, retriever: FactorsRetriever, bundle: Bundle) -> None:
    golden = data.golden
    if golden is None or not golden.user_rows:
        return
    for number, (row, expected) in enumerate(zip(golden.user_rows, golden.scores, strict=True)):
        found = retriever.users.of(UserState(row, bundle.history_of(row), live=False))
        if found is None:
            raise BundleRefused(
                bundle.manifest.golden, f"golden user row {row} has no vector in {data.name!r}"
            )
        best, scores = retriever.exact.search(found[0], len(expected), None, None)
        if len(scores) != len(expected) or not np.allclose(
            scores, expected, rtol=_TOLERANCE, atol=_TOLERANCE
        ):
            raise BundleRefused(
                bundle.manifest.golden, f"{data.name!r} answers golden query {number} with other scores"
            )
        promised = _promised(golden, retriever)
        if not promised:
            continue
        rows = set(retriever.search(found[0], len(expected), EVERYTHING)[0].tolist())
        exactly = set(best.tolist())  # a small catalogue is not searched by its graph
        if len(rows & set(promised[number])) < 0.9 * len(promised[number]) and rows != exactly:
            raise BundleRefused(
                bundle.manifest.golden, f"the index of {data.name!r} answers golden query {number} otherwise"
            )


def _promised(golden: Golden, retriever: FactorsRetriever) -> tuple[tuple[int, ...], ...]:
    """What this retriever answered when the bundle was built; empty for one that is exact."""
    match retriever:
        case HnswRetriever():
            return golden.hnsw_item_rows
        case IvfRetriever():
            return golden.ivf_item_rows
        case _:
            return ()


def _check_tower(data: ModelData, retriever: FactorsRetriever, bundle: Bundle) -> None:
    """Known users' histories and features must lead to the vectors that were trained, or the tower is another's."""
    tower, golden = retriever.users.tower, data.golden
    if data.tower is None or tower is None or not tower.is_open or golden is None or not tower.reads_history:
        return  # one of features alone answers only those who have no vector
    for row in golden.user_rows:
        user = UserState(row, bundle.history_of(row), live=True)
        try:
            found = tower.vector(user)
        except StageUnavailable:
            raise BundleRefused(data.tower.name, f"gives golden user row {row} no usable vector") from None
        trained = retriever.users.of(UserState(row, user.history, live=False))
        if found is None or trained is None:  # of this user it is told nothing
            continue
        difference = trained[0] - found[0]
        if not float(difference @ difference) <= _TOWER_TOLERANCE**2 * float(trained[0] @ trained[0]):
            raise BundleRefused(
                data.tower.name,
                f"gives golden user row {row} another vector than {data.entry.files['user_vectors']} has",
            )


def _lists(data: ModelData, retriever: Retriever, bundle: Bundle) -> PrecomputedLists | None:
    """Take up what was computed beforehand, once a sample of it is what a search answers. Raises BundleRefused."""
    width = data.entry.precomputed
    if data.entry.kind not in KINDS or width is None:
        return None
    lists = PrecomputedLists(data.arrays, width)
    n_users = len(bundle.user_ids)
    for row in np.linspace(0, n_users - 1, min(_WARM_UPS, n_users)).astype(int).tolist():
        user = UserState(row, bundle.history_of(row), live=False)
        rules = Eligible(user.history, None)
        listed = lists.find(user, width, rules)
        if listed is None:
            continue
        found = retriever.retrieve(user, width, rules)
        if (
            found is None
            or len(found.item_rows) != len(listed.item_rows)
            or not np.allclose(found.scores, listed.scores, rtol=_TOLERANCE, atol=_TOLERANCE)
        ):
            raise BundleRefused(
                data.entry.files["precomputed_scores"], f"user row {row} is not listed what a search answers"
            )
    return lists


def _warm_up(retriever: Retriever, bundle: Bundle, clock: Clock) -> float:
    """Answer some users and return the dearest answer's seconds (the first is left out: it maps the pages in)."""
    rows = np.linspace(0, len(bundle.user_ids) - 1, min(_WARM_UPS, len(bundle.user_ids))).astype(int).tolist()
    users = [UserState(row, bundle.history_of(row), live=False) for row in rows[:1] + rows]
    if isinstance(retriever, FactorsRetriever) and retriever.users.tower is not None:
        # What they did since costs a run of the tower, whoever has a vector.
        users += [UserState(user.row, user.history, live=True) for user in users]
    seconds = []
    for user in users:
        started = clock()
        with contextlib.suppress(StageUnavailable):
            retriever.retrieve(user, 10, EVERYTHING)
        seconds.append(clock() - started)
    return max(seconds[1:], default=0.0)
