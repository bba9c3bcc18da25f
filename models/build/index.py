"""From trained vectors to searchable ones: order, graph index, golden queries, and the recall each search gives.

On trained ALS vectors a graph index saturates below full recall however wide it searches (users are not distributed
like items, and long vectors shadow the rest), so the choice between graph and exact scan is made here by measurement.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import hnswlib
import numpy as np
import numpy.typing as npt

from models.trained import TrainedModel
from service.bundle.manifest import Hnsw, Recall, Retrieval
from service.domain import Space
from service.recommender.exact import ExactIndex

Vectors = npt.NDArray[np.float32]
IndexChoice = Literal["auto", "exact", "hnsw", "none"]
"""auto: build the graph, serve whichever measures better; exact / hnsw: build the graph, serve that; none: no graph."""

RECALL_WANTED = 0.99
_M_TRIED = (16, 32, 48)
_EF_TRIED = (32, 64, 128, 256, 400)
_EF_CONSTRUCTION = 200
_GOLDEN = 16
_GRAPH_FROM = 40
"""Up to so many items a request for ten is a quarter of the catalogue, and the graph's retriever scans it anyway."""
_SPEED_UP_WANTED = 1.3
"""A graph must beat the exact scan by this to be worth its lost recall; also keeps a near-tie from flipping."""


@dataclass(frozen=True, slots=True)
class SearchableModel:
    """A factors model ready to be written: arrays by role (item vectors by falling norm, `gram` where fold-in needs
    it), the graph index or None, the manifest's retrieval entry, and the golden queries."""

    arrays: Mapping[str, npt.NDArray[Any]]
    index: hnswlib.Index | None
    retrieval: Retrieval
    golden: dict[str, Any]
    microseconds: Mapping[str, float]
    """Median microseconds of a single query by retriever, for the build's report; not part of the bundle."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Queries that stand in for trained user vectors where there are none.

    user_rows: int32 (n,), -1 where the query is nobody's. vectors: float32 (n, dim), as the service would solve them.
    """

    user_rows: npt.NDArray[np.int32]
    vectors: Vectors


def make_searchable(
    trained: TrainedModel,
    *,
    seed: int = 0,
    choice: IndexChoice = "auto",
    n_queries: int = 1000,
    probes: Probes | None = None,
) -> SearchableModel:
    """Order, index, measure. Raises ValueError for zero vectors or a model that is not of kind factors.

    `probes` are asked only if the model has no user vectors.
    """
    if trained.kind != "factors" or trained.space is None:
        raise ValueError("only a factors model with a space can be searched")
    space = trained.space
    items, users = (prepared(trained.arrays[role], role, space) for role in ("item_vectors", "user_vectors"))
    norms = np.sqrt(np.einsum("nd,nd->n", items, items))
    # Equal norms (a cosine space) keep catalogue order, so that equal scores resolve alike everywhere.
    order = np.lexsort((trained.arrays["item_rows"], np.zeros_like(norms) if space == "cosine" else -norms))
    items, item_rows = np.ascontiguousarray(items[order]), trained.arrays["item_rows"][order]
    arrays: dict[str, npt.NDArray[Any]] = {
        "item_vectors": items, "item_rows": item_rows, "user_vectors": users, "user_rows": trained.arrays["user_rows"],
    }  # fmt: skip
    if "fold_in" in trained.parameters:
        arrays["gram"] = (items.astype(np.float64).T @ items.astype(np.float64)).astype(np.float32)

    asked, asked_rows = users, trained.arrays["user_rows"]
    if len(users) == 0 and probes is not None:
        asked, asked_rows = probes.vectors, probes.user_rows
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.choice(len(asked), min(n_queries, len(asked)), replace=False))
    exact = ExactIndex(items, space)
    rows_scanned = _mean_read(exact, asked[sample[:200]])
    index, retrieval, microseconds = _choose(items, asked[sample], exact, space, rows_scanned, seed, choice)
    somebodys = sample[asked_rows[sample] >= 0]
    golden = _golden(asked_rows, asked, item_rows, exact, index, somebodys[:_GOLDEN])
    return SearchableModel(arrays, index, retrieval, golden, microseconds)


def prepared(vectors: npt.NDArray[Any], role: str, space: Space) -> Vectors:
    """Vectors as they are served: float32 (n, dim), of unit norm in a cosine space. Raises ValueError for zero ones."""
    ready = np.ascontiguousarray(vectors, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", ready, ready))
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError(
            f"{role}: row {int(np.argmin(np.nan_to_num(norms)))} has a zero or non-finite vector"
        )
    return ready / norms[:, None] if space == "cosine" else ready


def _choose(
    items: Vectors,
    queries: Vectors,
    exact: ExactIndex,
    space: Space,
    rows_scanned: float,
    seed: int,
    choice: IndexChoice,
) -> tuple[hnswlib.Index | None, Retrieval, dict[str, float]]:
    whole = Recall(at_10=1.0, at_100=1.0, queries=len(queries))
    if choice == "none" or len(items) < 2 or len(queries) == 0:
        return None, Retrieval(retriever="exact", recall=whole, rows_scanned=rows_scanned), {}
    truth = [exact.search(query, min(100, len(items)), None, None)[0] for query in queries]
    tried: list[tuple[Hnsw, hnswlib.Index]] = []
    for m in _M_TRIED:
        index = _build(items, space, m, seed)
        for ef in _EF_TRIED:
            recall = measure_recall(index, ef, queries, truth)
            tried.append((Hnsw(m=m, ef_construction=_EF_CONSTRUCTION, ef_search=ef, recall=recall), index))
            if recall.at_10 >= RECALL_WANTED:
                break
        if tried[-1][0].recall.at_10 >= RECALL_WANTED:
            break
    reached = [pair for pair in tried if pair[0].recall.at_10 >= RECALL_WANTED]
    settings, index = reached[-1] if reached else max(tried, key=lambda pair: pair[0].recall.at_10)
    index.set_ef(settings.ef_search)
    microseconds = {
        "exact": _median_microseconds(lambda query: exact.search(query, 10, None, None), queries),
        "hnsw": _median_microseconds(
            lambda query: index.knn_query(query, k=min(10, len(items)), num_threads=1), queries
        ),
    }
    served: Literal["exact", "hnsw"] = "exact"
    if choice == "hnsw" or (
        choice == "auto"
        and reached
        and len(items) > _GRAPH_FROM
        and microseconds["hnsw"] * _SPEED_UP_WANTED < microseconds["exact"]
    ):
        served = "hnsw"
    measured = [
        {"m": s.m, "ef_search": s.ef_search, "recall_at_10": s.recall.at_10, "recall_at_100": s.recall.at_100}
        for s, _ in tried
    ]
    retrieval = Retrieval(
        retriever=served,
        recall=settings.recall if served == "hnsw" else whole,
        hnsw=settings,
        rows_scanned=rows_scanned,
        measured=measured,
    )
    return index, retrieval, microseconds


def _mean_read(exact: ExactIndex, queries: Vectors) -> float:
    """How many vectors an exact search of ten reads, averaged over queries."""
    read = []
    for query in queries:
        exact.search(query, 10, None, None)
        read.append(exact.read)
    return float(np.mean(read)) if read else float(exact.size)


def _build(items: Vectors, space: Space, m: int, seed: int) -> hnswlib.Index:
    index = hnswlib.Index(space="l2" if space == "l2" else "ip", dim=items.shape[1])
    index.init_index(max_elements=len(items), M=m, ef_construction=_EF_CONSTRUCTION, random_seed=seed + 1)
    index.add_items(
        items, np.arange(len(items)), num_threads=1
    )  # one thread: equal inputs give an equal graph
    return index


def measure_recall(
    index: hnswlib.Index, ef: int, queries: Vectors, truth: Sequence[npt.NDArray[np.integer]]
) -> Recall:
    """Share of the exact top 10 and top 100 found, averaged over queries. truth: best positions first, a query each."""
    at = {}
    for k in (10, 100):
        wanted = min(k, len(truth[0]))
        index.set_ef(max(ef, wanted))
        try:
            found, _ = index.knn_query(queries, k=wanted, num_threads=1)
        except RuntimeError:  # a graph so broken up that a walk ends short
            at[k] = 0.0
            continue
        hits = sum(len(np.intersect1d(row, exact[:wanted])) for row, exact in zip(found, truth, strict=True))
        at[k] = round(hits / (wanted * len(queries)), 6)
    return Recall(at_10=at[10], at_100=at[100], queries=len(queries))


def _median_microseconds(search: Any, queries: Vectors) -> float:
    seconds = []
    for query in queries[:300]:
        started = time.perf_counter()
        search(query)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1e6)


def _golden(
    user_rows: npt.NDArray[np.int32],
    users: Vectors,
    item_rows: npt.NDArray[np.int32],
    exact: ExactIndex,
    index: hnswlib.Index | None,
    sample: npt.NDArray[np.integer],
) -> dict[str, Any]:
    golden: dict[str, list[Any]] = {"user_rows": [], "item_rows": [], "scores": [], "hnsw_item_rows": []}
    wanted = min(10, len(item_rows))
    for place in sample.tolist():
        positions, scores = exact.search(users[place], wanted, None, None)
        golden["user_rows"].append(int(user_rows[place]))
        golden["item_rows"].append(item_rows[positions].tolist())
        golden["scores"].append([float(score) for score in scores])
        if index is not None:
            labels, _ = index.knn_query(users[place], k=wanted, num_threads=1)
            golden["hnsw_item_rows"].append(item_rows[labels[0].astype(np.int64)].tolist())
    return golden
