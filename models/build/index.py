"""From trained vectors to searchable ones: order, index, golden queries, and the recall each search gives.

On trained ALS vectors a graph index saturates below full recall however wide it searches (users are not distributed
like items, and long vectors shadow the rest), and an exact scan is quick where norms fall off; where they don't, cells
or a graph are. So the choice is made here by measurement.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import hnswlib
import numpy as np
import numpy.typing as npt

from models.build.cells import InCells, Rows, in_cells, probes_tried, recall_of
from models.trained import TrainedModel
from service.bundle.manifest import Hnsw, Ivf, Recall, Retrieval, RetrieverName
from service.domain import Space
from service.recommender.exact import ExactIndex

Vectors = npt.NDArray[np.float32]
IndexChoice = Literal["auto", "exact", "hnsw", "ivf", "none"]
"""auto: try what may pay, serve what measures best; hnsw / ivf: serve the graph, or the cells; exact: serve that, with
a graph beside it where the catalogue is not too large for one; none: exact, and nothing beside it."""

RECALL_WANTED = 0.99
_M_TRIED = (16, 32, 48)
_EF_TRIED = (32, 64, 128, 256, 400)
_EF_CONSTRUCTION = 200
_GOLDEN = 16
_GRAPH_UP_TO = 100_000
"""A larger catalogue's graph, which takes minutes, is built only if it is asked for or cells find too little."""
CELLS_FROM = 20_000
"""Cells are tried where an exact search reads so many vectors or more: below, it takes less than they could save."""
_GRAPH_FROM = 40
"""Up to so many items a request for ten is a quarter of the catalogue, and the graph's retriever scans it anyway."""
SPEED_UP_WANTED = 1.3
"""An index must beat the exact scan by this to be worth its lost recall; also keeps a near-tie from flipping."""


@dataclass(frozen=True, slots=True)
class SearchableModel:
    """A factors model ready to be written: arrays by role (item vectors by cells, where there are such, else by falling
    norm; `gram` where fold-in needs it), the graph index or None, the manifest's retrieval entry, and the golden
    queries."""

    arrays: Mapping[str, npt.NDArray[Any]]
    index: hnswlib.Index | None
    retrieval: Retrieval
    golden: dict[str, Any]
    microseconds: Mapping[RetrieverName, float]
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
    asked, asked_rows = users, trained.arrays["user_rows"]
    if len(users) == 0 and probes is not None:
        asked, asked_rows = probes.vectors, probes.user_rows
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.choice(len(asked), min(n_queries, len(asked)), replace=False))
    searching = _choose(items, asked[sample], space, seed, choice)
    arrays: dict[str, npt.NDArray[Any]] = {}
    cells = None
    if searching.cells is not None:
        cells = searching.cells.cells
        items = np.ascontiguousarray(items[searching.cells.order])
        item_rows = item_rows[searching.cells.order]
        arrays |= {"cell_centroids": cells.centroids, "cell_starts": cells.starts}
    arrays |= {
        "item_vectors": items, "item_rows": item_rows, "user_vectors": users, "user_rows": trained.arrays["user_rows"],
    }  # fmt: skip
    if "fold_in" in trained.parameters:
        arrays["gram"] = (items.astype(np.float64).T @ items.astype(np.float64)).astype(np.float32)
    somebodys = sample[asked_rows[sample] >= 0][:_GOLDEN]
    golden = _golden(asked[somebodys], item_rows, ExactIndex(items, space, cells=cells), searching)
    golden["user_rows"] = asked_rows[somebodys].tolist()
    return SearchableModel(arrays, searching.graph, searching.retrieval, golden, searching.microseconds)


def prepared(vectors: npt.NDArray[Any], role: str, space: Space) -> Vectors:
    """Vectors as they are served: float32 (n, dim), of unit norm in a cosine space. Raises ValueError for zero ones."""
    ready = np.ascontiguousarray(vectors, np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", ready, ready))
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise ValueError(
            f"{role}: row {int(np.argmin(np.nan_to_num(norms)))} has a zero or non-finite vector"
        )
    return ready / norms[:, None] if space == "cosine" else ready


@dataclass(frozen=True, slots=True)
class _Searching:
    """What was chosen. graph and cells: what goes into the bundle, at most one of them."""

    retrieval: Retrieval
    microseconds: Mapping[RetrieverName, float]
    graph: hnswlib.Index | None = None
    cells: InCells | None = None


@dataclass(frozen=True, slots=True)
class _Exam:
    """Vectors, who asks for them, and the exact answers: places of up to 100 items, the best first, a query each."""

    items: Vectors
    space: Space
    queries: Vectors
    truth: Sequence[Rows]
    seed: int


def _choose(items: Vectors, queries: Vectors, space: Space, seed: int, choice: IndexChoice) -> _Searching:
    exact = ExactIndex(items, space)
    rows_scanned = _mean_read(exact, queries[:200])
    whole = Recall(at_10=1.0, at_100=1.0, queries=len(queries))
    if choice == "none" or len(items) < 2 or len(queries) == 0:
        return _Searching(Retrieval(retriever="exact", recall=whole, rows_scanned=rows_scanned), {})
    truth = [exact.search(query, min(100, len(items)), None, None)[0] for query in queries]
    exam = _Exam(items, space, queries, truth, seed)
    microseconds: dict[RetrieverName, float] = {
        "exact": _median_microseconds(lambda query: exact.search(query, 10, None, None), queries)
    }
    measured: list[dict[str, float]] = []
    reached: dict[RetrieverName, bool] = {}

    cells = ivf = graph = hnsw = None
    if choice == "ivf" or (choice == "auto" and rows_scanned >= CELLS_FROM):
        cells, ivf, searched = _try_cells(exam, measured)
        reached["ivf"] = ivf.recall.at_10 >= RECALL_WANTED
        microseconds["ivf"] = _median_microseconds(searched, queries)
    large = len(items) > _GRAPH_UP_TO
    if choice == "hnsw" or (choice != "ivf" and (not large or reached.get("ivf") is False)):
        graph, hnsw, searched = _try_graphs(exam, measured)
        reached["hnsw"] = hnsw.recall.at_10 >= RECALL_WANTED and len(items) > _GRAPH_FROM
        microseconds["hnsw"] = _median_microseconds(searched, queries)

    served: RetrieverName = "exact"
    if choice in ("hnsw", "ivf"):
        served = choice
    elif choice == "auto":
        enough = [name for name, does in reached.items() if does]
        quickest = min(enough, key=microseconds.__getitem__, default=served)
        if microseconds[quickest] * SPEED_UP_WANTED < microseconds["exact"]:
            served = quickest
    if served == "ivf":
        graph = hnsw = None
    else:
        cells = ivf = None
    found = {"hnsw": hnsw, "ivf": ivf}.get(served)
    retrieval = Retrieval(
        retriever=served,
        recall=whole if found is None else found.recall,
        hnsw=hnsw,
        ivf=ivf,
        rows_scanned=rows_scanned,
        measured=measured,
    )
    return _Searching(retrieval, microseconds, graph, cells)


_Search = Callable[[Vectors], Any]


def _try_cells(exam: _Exam, measured: list[dict[str, float]]) -> tuple[InCells, Ivf, _Search]:
    """Cells, with the fewest searched that find enough, or the most that may be; what was tried goes to `measured`."""
    made = in_cells(exam.items, seed=exam.seed)
    index, n_cells = made.index(exam.items, exam.space), len(made.cells.centroids)
    tried = [
        Ivf(n_cells=n_cells, n_probe=n_probe, recall=recall)
        for n_probe, recall in probes_tried(index, n_cells, exam.queries, exam.truth, RECALL_WANTED)
    ]
    measured += [{"n_cells": n_cells, "n_probe": one.n_probe, **_told(one.recall)} for one in tried]
    n_probe = tried[-1].n_probe
    return made, tried[-1], lambda query: index.search_cells(query, 10, None, None, n_probe)


def _try_graphs(exam: _Exam, measured: list[dict[str, float]]) -> tuple[hnswlib.Index, Hnsw, _Search]:
    """The first graph and width that find enough, else those that find most; what was tried goes to `measured`."""
    tried: list[tuple[Hnsw, hnswlib.Index]] = []
    for m, ef in itertools.product(_M_TRIED, _EF_TRIED):
        index = _build(exam.items, exam.space, m, exam.seed) if ef == _EF_TRIED[0] else tried[-1][1]
        recall = measure_recall(index, ef, exam.queries, exam.truth)
        tried.append((Hnsw(m=m, ef_construction=_EF_CONSTRUCTION, ef_search=ef, recall=recall), index))
        measured.append({"m": m, "ef_search": ef, **_told(recall)})
        if recall.at_10 >= RECALL_WANTED:
            break
    settings, index = max(tried, key=lambda pair: pair[0].recall.at_10)
    index.set_ef(settings.ef_search)
    k = min(10, len(exam.items))
    return index, settings, lambda query: index.knn_query(query, k=k, num_threads=1)


def _told(recall: Recall) -> dict[str, float]:
    return {"recall_at_10": recall.at_10, "recall_at_100": recall.at_100}


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

    def find(asked: Vectors, k: int) -> Sequence[Rows]:
        index.set_ef(max(ef, k))
        try:
            found: Rows = index.knn_query(asked, k=k, num_threads=1)[0]
        except RuntimeError:  # a graph so broken up that a walk ends short
            return [np.empty(0, np.int32)] * len(asked)
        return list(found)

    return recall_of(find, queries, truth)


def _median_microseconds(search: Any, queries: Vectors) -> float:
    seconds = []
    for query in queries[:300]:
        started = time.perf_counter()
        search(query)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds) * 1e6)


def _golden(
    queries: Vectors, item_rows: npt.NDArray[np.int32], exact: ExactIndex, searching: _Searching
) -> dict[str, list[Any]]:
    golden: dict[str, list[Any]] = {"item_rows": [], "scores": [], "hnsw_item_rows": [], "ivf_item_rows": []}
    wanted = min(10, len(item_rows))
    for query in queries:
        positions, scores = exact.search(query, wanted, None, None)
        golden["item_rows"].append(item_rows[positions].tolist())
        golden["scores"].append([float(score) for score in scores])
        if searching.graph is not None:
            labels, _ = searching.graph.knn_query(query, k=wanted, num_threads=1)
            golden["hnsw_item_rows"].append(item_rows[labels[0].astype(np.int64)].tolist())
        if searching.retrieval.ivf is not None:
            positions, _ = exact.search_cells(query, wanted, None, None, searching.retrieval.ivf.n_probe)
            golden["ivf_item_rows"].append(item_rows[positions].tolist())
    return golden
