"""How build, start, memory and search grow with the catalogue and the users; or what a published bundle takes.

    make bench-scale
    make bench-scale ARGS='--items 16000,100000 --users 100000 --both none --graph-up-to 16000'
    make bench-scale ARGS='--items 1000000 --users none --both none --norms equal --graph-up-to 1000000'
    .venv/bin/python tests/benchmarks/bench_scale.py --artifacts artifacts    # what is published there

Catalogues are generated, made into bundles by the package's own functions, loaded in process and searched, then served
by `reco serve` with two workers and asked over HTTP. Two kinds of vectors:

- `falling`: random directions in space `ip`, item norms log-normal (sigma .9) as trained ALS has them; users can be
  solved from their histories (fold-in), so the bundle has a Gram matrix;
- `equal`: unit norm in space `cosine`, as towers give. Random directions would be harder than any trained vectors are,
  so these have what training leaves: variance that falls off from dimension to dimension (normed ALS vectors of
  movielens-100k: .071 in the first of 64, .018 in the 16th, .007 in the last; these: .080, .017, .007), and topics that
  items gather around, half of their variance, with users between two of them.

Every user has seen 20 items, popular ones more often. Beside exact search two indexes are built and measured, with 50
items dropped: cells where norms are equal, a graph up to a size. What is served is the fastest, as a build decides it.

Memory is from /proc/PID/smaps_rollup while the workers answer: RSS counts every page a process maps, PSS shares a
page's size among those that map it, so the PSS of all processes add up to what the service holds: `held`. Pages of
arrays that no answer has needed yet are not among them; `most` is as if all were. What a second worker adds is what it
alone has and no file holds. Files are in the page cache throughout. A table to stderr, one JSON line to stdout, curves
as SVG.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.build.assemble import assemble
from models.build.index import CELLS_FROM, RECALL_WANTED, SPEED_UP_WANTED, IndexChoice
from models.data.dataset import Dataset
from models.trained import TrainedModel
from service.bundle.ids import IntIds
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import ItemRows
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, LiveModel, go_live
from service.recommender.retrieval import FactorsRetriever, HnswRetriever
from service.recommender.user_state import UserState

MODEL = "vectors"
SEEN, DROPPED, K = 20, 50, 10
SIGMA = 0.9
QUERIES, REQUESTS, FEWEST = 1000, 2000, 100
WORKERS = 2
_READY_S, _HTTP_S = 600.0, 2.0
_FALL = 0.3
"""A dimension's spread falls as its number to this power: its variance twice as fast."""
_BLOCK = 1 << 18
Norms = Literal["falling", "equal"]
Vectors = npt.NDArray[np.float32]
Micro = dict[str, float]


@dataclass(frozen=True, slots=True)
class Case:
    """One catalogue. `graph`: whether to make one."""

    items: int
    users: int
    norms: Norms
    graph: bool
    curve: Literal["items", "users", "both"]

    def __str__(self) -> str:
        return f"{self.items:,} items x {self.users:,} users, {self.norms}"


@dataclass(slots=True)
class Found:
    """What one case took; None where it was not measured."""

    case: Case
    build_s: float | None = None
    index_build_s: dict[str, float] = field(default_factory=dict)
    """By index, `hnsw` and `ivf`: a build with it, nothing spared."""
    bundle_bytes: int = 0
    array_bytes: int = 0
    load_s: float = 0.0
    live_s: float = 0.0
    load_cpu_s: float = 0.0
    ready_s: float = 0.0
    loading_cpu_s: float = 0.0
    serves: str = ""
    index: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By index: its settings, and the recall that the build measured, nothing dropped."""
    search: dict[str, Micro] = field(default_factory=dict)
    """By retriever: p50 and p99 microseconds, recall_at_10, rows_read."""
    http: Micro = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)


# -- generated catalogues ---------------------------------------------------------------------------------------


def vectors_of(
    norms: Norms, items: int, users: int, dim: int, chance: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Item and user vectors, float32 (items, dim) and (users, dim), as the module says."""
    item_vectors, user_vectors = (chance.standard_normal((n, dim), np.float32) for n in (items, users))
    if norms == "falling":
        _scale(item_vectors, np.exp(SIGMA * chance.standard_normal(items)) / _lengths(item_vectors))
        return item_vectors, user_vectors
    spread = np.arange(1, dim + 1, dtype=np.float32) ** -_FALL
    n_topics = max(1, int(4 * items**0.5))
    topics = chance.standard_normal((n_topics, dim), np.float32)
    for vectors, each in ((item_vectors, 1), (user_vectors, 2)):
        for _ in range(each):
            chosen = (n_topics * chance.random(len(vectors)) ** 2).astype(np.int32)
            for first in range(0, len(vectors), _BLOCK):
                vectors[first : first + _BLOCK] += topics[chosen[first : first + _BLOCK]]
        np.multiply(vectors, spread, out=vectors)
        _scale(vectors, 1 / _lengths(vectors))
    return item_vectors, user_vectors


def _lengths(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths


def _scale(vectors: Vectors, by: npt.NDArray[Any]) -> None:
    vectors *= by.astype(np.float32)[:, None]


def seen_by(users: int, items: int, chance: np.random.Generator) -> npt.NDArray[np.int32]:
    """int32 (users, up to 20): what each has seen, ascending, popular items more often; twice only by chance."""
    each = min(SEEN, items)
    seen = np.empty((users, each), np.int32)
    for first in range(0, users, _BLOCK):
        part = seen[first : first + _BLOCK]
        part[:] = items * chance.random(part.shape, np.float32) ** 3
        np.minimum(part, items - 1, out=part)
        part.sort(axis=1)
    return seen


def generated(case: Case, dim: int) -> tuple[Dataset, dict[str, TrainedModel]]:
    """The case's data set and its two models, popular and the vectors."""
    chance = np.random.default_rng(1)
    seen = seen_by(case.users, case.items, chance)
    count = seen.size
    dataset = Dataset(
        name=f"generated-{case.norms}-{case.users}x{case.items}",
        user_ids=IntIds(1 + 2 * np.arange(case.users)),
        item_ids=IntIds(1 + 3 * np.arange(case.items)),
        user_rows=np.repeat(np.arange(case.users, dtype=np.int32), seen.shape[1]),
        item_rows=seen.ravel(),
        weights=np.broadcast_to(np.float32(1), count),
        times=None,
        time_kind=None,
    )
    popularity = np.zeros(case.items, np.int64)
    for first in range(0, count, _BLOCK):
        popularity += np.bincount(dataset.item_rows[first : first + _BLOCK], minlength=case.items)
    order = np.argsort(-popularity, kind="stable").astype(np.int32)
    item_vectors, user_vectors = vectors_of(case.norms, case.items, case.users, dim, chance)
    fold_in = {"fold_in": {"regularization": 0.1, "alpha": 2.0}} if case.norms == "falling" else {}
    return dataset, {
        "popular": TrainedModel(
            "popular",
            {
                "indptr": np.array([0, case.items], np.int64),
                "items": order,
                "scores": popularity[order].astype(np.float32),
                "user_segment": np.zeros(case.users, np.int32),
            },
            parameters={"segments": ["everybody"]},
        ),
        MODEL: TrainedModel(
            "factors",
            {
                "item_rows": np.arange(case.items, dtype=np.int32),
                "item_vectors": item_vectors,
                "user_rows": np.arange(case.users, dtype=np.int32),
                "user_vectors": user_vectors,
            },
            space="ip" if case.norms == "falling" else "cosine",
            parameters=fold_in,
        ),
    }


# -- in this process --------------------------------------------------------------------------------------------


def built(root: Path, case: Case, dim: int, found: Found) -> dict[IndexChoice, Path]:
    """Assemble without an index, and with each that the case has: the bundles by choice."""
    dataset, models = generated(case, dim)
    choices: list[IndexChoice] = ["none"]
    choices += ["ivf"] if case.norms == "equal" else []
    choices += ["hnsw"] if case.graph else []
    paths = {}
    for choice in choices:
        began = time.perf_counter()
        paths[choice] = assemble(root, dataset, models, default_model=MODEL, index=choice).path
        seconds = round(time.perf_counter() - began, 2)
        if choice == "none":
            found.build_s = seconds
        else:
            found.index_build_s[choice] = seconds
    return paths


def searched(paths: Mapping[IndexChoice, Path], found: Found) -> IndexChoice:
    """Load each bundle here and ask it; recall is against exact search under the same exclusions.

    Returns the choice that serves: the fastest, as a build decides it.
    """
    best: IndexChoice = "none"
    truth: list[list[int]] = []
    for choice, path in paths.items():
        began, cpu = time.perf_counter(), time.process_time()
        bundle = load_bundle(path)
        loaded = time.perf_counter()
        live = go_live(bundle)
        found.live_s = round(time.perf_counter() - loaded, 3)
        found.load_s, found.load_cpu_s = round(loaded - began, 3), round(time.process_time() - cpu, 3)
        model = _searched_model(live)
        if model is None:
            continue
        retriever, retrieval = model.retriever, model.data.entry.retrieval
        assert isinstance(retriever, FactorsRetriever)
        assert retrieval is not None
        name = found.serves = retriever.name
        asked = list(_questions(live, QUERIES))
        if name == "exact":
            found.search[name], truth = _timed(retriever, asked)
            continue
        if not truth:
            exact = go_live(bundle, retriever="exact").models[model.name].retriever
            assert isinstance(exact, FactorsRetriever)
            found.search["exact"], truth = _timed(exact, asked)
        settings = retrieval.ivf if name == "ivf" else retrieval.hnsw
        assert settings is not None
        found.index[name] = settings.model_dump()
        found.search[name], rows = _timed(retriever, asked[: len(truth)])
        found.search[name]["recall_at_10"] = _recall(rows, truth)
        if settings.recall.at_10 >= RECALL_WANTED and _pays(found, name, best):
            best = choice
    found.serves = found.serves if len(paths) == 1 else "exact" if best == "none" else best
    return best


def _pays(found: Found, name: str, best: IndexChoice) -> bool:
    if name == "ivf" and found.search["exact"]["rows_read"] < CELLS_FROM:
        return False  # a build would not have tried them
    took, exact = found.search[name]["p50_us"], found.search["exact"]["p50_us"]
    return took * SPEED_UP_WANTED < exact and (best == "none" or took < found.search[best]["p50_us"])


def _searched_model(live: LiveBundle) -> LiveModel | None:
    """The model that `default` stands for, if it is searched; else the first that is."""
    for model in (live.models["default"], *live.models.values()):
        if isinstance(model.retriever, FactorsRetriever):
            return model
    return None


def _questions(live: LiveBundle, count: int) -> Iterator[tuple[UserState, Eligible]]:
    """Random users, each with 50 items to drop: what they have seen, and popular ones besides."""
    bundle, chance = live.bundle, np.random.default_rng(2)
    n_items = len(bundle.item_ids)
    for row in chance.integers(0, len(bundle.user_ids), count).tolist():
        history = bundle.history_of(row)
        more = (n_items * chance.random(2 * DROPPED) ** 3).astype(np.int32)
        dropped: ItemRows = np.unique(np.concatenate((history, more)))
        dropped = chance.permutation(dropped)[: min(DROPPED, n_items // 2)]
        yield UserState(row, history, live=False), Eligible(dropped, None)


def _timed(retriever: Any, asked: Sequence[tuple[UserState, Eligible]]) -> tuple[Micro, list[list[int]]]:
    """Microseconds, vectors read, and the rows found; the first hundred questions and as many more as take a second."""
    seconds: list[float] = []
    rows: list[list[int]] = []
    read = 0
    for user, rules in asked:
        if len(seconds) >= FEWEST and sum(seconds) > 1:
            break
        began = time.perf_counter()
        found = retriever.retrieve(user, K, rules)
        seconds.append(time.perf_counter() - began)
        rows.append(found.item_rows.tolist())
        read += retriever.exact.read
    told = _percentiles(seconds)
    if not isinstance(retriever, HnswRetriever):
        told["rows_read"] = round(read / len(seconds))
    return told, rows


def _recall(rows: Sequence[list[int]], truth: Sequence[list[int]]) -> float:
    hits = sum(len(set(found) & set(exact)) for found, exact in zip(rows, truth, strict=True))
    return round(hits / max(1, sum(map(len, truth))), 4)


def _percentiles(seconds: Sequence[float]) -> Micro:
    p50, p99 = np.percentile(np.array(seconds) * 1e6, (50, 99)).tolist()
    return {"p50_us": round(p50, 1), "p99_us": round(p99, 1), "least_us": round(min(seconds) * 1e6, 1)}


# -- served -----------------------------------------------------------------------------------------------------


def served(root: Path, users: npt.NDArray[np.int64], found: Found) -> None:
    """Start `reco serve`, wait until it is ready, ask it, weigh its processes."""
    token = secrets.token_hex(24)
    reco = Path(sys.executable).with_name("reco")
    command = [str(reco), "serve", "--artifacts", str(root), "--port", "0", "--workers", str(WORKERS)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RECO_")},
        "RECO_TOKENS": f"bench:{token}", "RECO_ACCESS_LOG": "false", "RECO_DRAIN_WAIT_S": "0", "RECO_BUDGET_MS": "1000",
    }  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        address = _address(process)
        while not _ready(address):
            if time.perf_counter() - began > _READY_S:
                raise SystemExit("reco serve is not ready after ten minutes")
            time.sleep(0.002)
        found.ready_s = round(time.perf_counter() - began, 3)
        pids = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in _descendants(process.pid)}
        found.loading_cpu_s = round(sum(_cpu_seconds(pid) for pid in (process.pid, *pids)), 2)
        headers = {"Authorization": f"Bearer {token}"}
        for _ in range(8 * WORKERS):  # other connections, so that each worker has answered some
            _ask(address, headers, users[:: max(1, len(users) // 25)])
        found.http = _ask(address, headers, users)
        workers = sorted(pid for pid, name in pids.items() if name == "reco-worker")
        found.memory = _weighed(process.pid, [pid for pid in pids if pid not in workers], workers)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    if "ready on " not in line:
        raise SystemExit(line + process.stderr.read())
    return urllib.parse.urlsplit(line.split("ready on ")[1].split(": ")[0]).netloc


def _ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False


def _ask(address: str, headers: dict[str, str], users: npt.NDArray[np.int64]) -> Micro:
    """Ask for each user over one kept connection: microseconds, and the share of answers that left something out."""
    connection = http.client.HTTPConnection(address, timeout=60)
    seconds: list[float] = []
    degraded = 0
    with contextlib.closing(connection):
        for user in users.tolist():
            if len(seconds) >= FEWEST and sum(seconds) > _HTTP_S:
                break
            began = time.perf_counter()
            connection.request("GET", f"/reco/default/{user}?k={K}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            seconds.append(time.perf_counter() - began)
            if answer.status != 200:
                raise SystemExit(f"/reco answered {answer.status}: {body.decode()}")
            degraded += answer.getheader("X-Reco-Degraded") is not None
    return {**_percentiles(seconds), "degraded": round(degraded / len(seconds), 4)}


def _descendants(pid: int) -> list[int]:
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [found for child in children for found in (child, *_descendants(child))]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _weighed(parent: int, loaders: Sequence[int], workers: Sequence[int]) -> dict[str, Any]:
    """Bytes by process, and how they add up.

    `first`: of parent, loader and one worker; `second`: what the other adds. `anonymous`: what no file holds, of all.
    """
    pids = {"parent": parent}
    pids |= {f"loader {number}" if number else "loader": pid for number, pid in enumerate(loaders)}
    pids |= {f"worker {number}": pid for number, pid in enumerate(workers, 1)}
    each = {name: _smaps(pid) for name, pid in pids.items()}
    together = sum(one["pss"] for one in each.values())
    second = max(each[f"worker {number}"]["own"] for number in range(2, len(workers) + 1))
    return {
        "processes": each, "together": together, "first": together - second, "second": second,
        "anonymous": sum(one["pss_anonymous"] for one in each.values()),
    }  # fmt: skip


def _smaps(pid: int) -> dict[str, int]:
    """Bytes: all that is mapped, its fair share, of that what no file holds, and of that what only this process has."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    size = {row[0].rstrip(":"): int(row[1]) << 10 for row in rows}
    return {
        "rss": size["Rss"],
        "pss": size["Pss"],
        "pss_anonymous": size["Pss_Anon"],
        "own": size["Private_Dirty"],
    }


# -- cases and reports ------------------------------------------------------------------------------------------


def cases_of(args: argparse.Namespace) -> list[Case]:
    """What was asked for, the smallest first."""
    made = []
    for items in args.items:
        made += [
            Case(items, args.fixed_users, norms, items <= args.graph_up_to, "items") for norms in args.norms
        ]
    norms = args.norms[0]
    for users in args.users:
        if (users, args.fixed_items) != (
            args.fixed_users,
            args.fixed_items,
        ) or args.fixed_items not in args.items:
            made.append(Case(args.fixed_items, users, norms, False, "users"))
    made += [Case(size, size, norms, False, "both") for size in args.both]
    return sorted(made, key=lambda case: (case.items + case.users, case.norms))


def needed_bytes(case: Case, dim: int) -> int:
    """Memory that generating and building takes at its peak, roughly: vectors in double precision, sorted events."""
    return 4 * dim * (7 * case.items + 2 * case.users) + 26 * SEEN * case.users


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62


def measured(case: Case, dim: int, scratch: Path) -> Found:
    """One case, from nothing to nothing."""
    found = Found(case)
    with tempfile.TemporaryDirectory(prefix="bench-scale-", dir=scratch) as folder:
        root = Path(folder)
        paths = built(root, case, dim, found)
        gc.collect()
        path = paths[searched(paths, found)]
        ArtifactStore(root).publish(path.name)
        for other in (root / "bundles").iterdir():
            if other != path:
                shutil.rmtree(other)
        weigh_files(path, found)
        gc.collect()
        asked = np.random.default_rng(3).integers(0, case.users, REQUESTS)
        served(root, 1 + 2 * asked, found)
    return found


def weigh_files(path: Path, found: Found) -> None:
    """Bytes of the bundle, and of its arrays: what is mapped."""
    sizes = {file: file.stat().st_size for file in path.rglob("*") if file.is_file()}
    found.bundle_bytes = sum(sizes.values())
    found.array_bytes = sum(size for file, size in sizes.items() if file.suffix == ".npy")


def published(artifacts: Path) -> Found:
    """The same of a bundle that is there; its folder is only read."""
    path = ArtifactStore(artifacts).current()
    bundle = load_bundle(path)
    users = bundle.user_ids.take(np.random.default_rng(3).integers(0, len(bundle.user_ids), REQUESTS))
    found = Found(Case(len(bundle.item_ids), len(bundle.user_ids), "falling", graph=False, curve="items"))
    del bundle
    weigh_files(path, found)
    searched({"none": path}, found)
    served(artifacts, np.array(users), found)
    return found


COLUMNS = (
    "items", "users", "norms", "build s", "with cells s", "with graph s", "serves", "bundle MB", "ready s",
    "held MB (of arrays)", "most, of arrays", "2nd worker", "exact µs p50 / p99", "cells µs p50 / p99", "recall@10",
    "graph µs p50 / p99", "recall@10", "/reco µs p50 / p99",
)  # fmt: skip


def row_of(found: Found) -> tuple[str, ...]:
    """A case as the table has it."""

    def pair(micro: Micro | None) -> str:
        return f"{micro['p50_us']:,.0f} / {micro['p99_us']:,.0f}" if micro else "-"

    def seconds(taken: float | None) -> str:
        return "-" if taken is None else f"{taken:.1f}"

    def recall(name: str, *settings: str) -> str:
        if name not in found.index:
            return "-"
        told = " ".join(f"{setting}={found.index[name][setting]}" for setting in settings)
        return f"{found.search[name]['recall_at_10']:.3f} ({told})"

    case, memory = found.case, found.memory
    return (
        f"{case.items:,}", f"{case.users:,}", case.norms,
        seconds(found.build_s), seconds(found.index_build_s.get("ivf")), seconds(found.index_build_s.get("hnsw")),
        found.serves, f"{found.bundle_bytes / 1e6:,.0f}", f"{found.ready_s:.2f}",
        f"{memory['together'] / 1e6:,.0f} ({memory['together'] / found.array_bytes:.2f})",
        f"{1 + memory['anonymous'] / found.array_bytes:.2f}", f"{memory['second'] / memory['first']:.1%}",
        pair(found.search.get("exact")), pair(found.search.get("ivf")), recall("ivf", "n_cells", "n_probe"),
        pair(found.search.get("hnsw")), recall("hnsw", "m", "ef_search"), pair(found.http),
    )  # fmt: skip


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """As Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def curves_of(results: Sequence[Found]) -> list[tuple[int, str, int, str, list[tuple[int, float]]]]:
    """Panel, label, colour, style and points of each curve."""
    curves: list[tuple[int, str, int, str, list[tuple[int, float]]]] = []
    for colour, norms in enumerate(("falling", "equal")):
        some = [(f.case.items, f) for f in results if f.case.curve == "items" and f.case.norms == norms]
        for kind, name, style in (("exact", "exact", "-"), ("ivf", "cells", ":"), ("hnsw", "graph", "--")):
            points = [(n, f.search[kind]["p50_us"]) for n, f in some if kind in f.search]
            curves.append((0, f"{name}, {norms} norms", colour, style, points))
        label = f"items, {norms} norms"
        curves.append((1, label, colour, "-", [(n, f.ready_s) for n, f in some]))
        curves.append((2, label, colour, "-", [(n, f.memory["together"] / 1e6) for n, f in some]))
        curves.append((3, label, colour, "-", [(n, f.build_s) for n, f in some if f.build_s is not None]))
        for kind, name, style in (("ivf", "cells", ":"), ("hnsw", "graph", "--")):
            built_s = [(n, f.index_build_s[kind]) for n, f in some if kind in f.index_build_s]
            curves.append((3, f"{label}: with {name}", colour, style, built_s))
    grown = {(f.case.items, f.case.norms) for f in results if f.case.curve == "users"}
    users = [
        (f.case.users, f) for f in results if f.case.curve != "both" and (f.case.items, f.case.norms) in grown
    ]
    curves.append((1, "users", 2, "-", [(n, f.ready_s) for n, f in users]))
    curves.append((2, "users", 2, "-", [(n, f.memory["together"] / 1e6) for n, f in users]))
    curves.append((3, "users", 2, "-", [(n, f.build_s) for n, f in users if f.build_s is not None]))
    return curves


def draw(results: Sequence[Found], target: Path) -> None:
    """Four panels: search, start, memory, build."""
    import matplotlib as mpl  # only where a picture is asked for
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator

    from models.drawing import RC, colour_of, panels

    figure, axes = panels(4, 3.2, 3.2)
    for panel, label, colour, style, points in curves_of(results):
        if points:
            at, values = zip(*sorted(points), strict=True)
            axes[panel].plot(
                at, values, style, marker="o", ms=3.5, lw=1.4, color=colour_of(colour), label=label
            )
    titles = ("a search, p50 µs", "ready, s", "memory of all processes, MB", "build, s")
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, loc="left", fontsize=9)
        place.set_xscale("log")
        place.set_yscale("log")
        place.grid(color="#d5dbe1", lw=0.5)
        place.set_xlabel("items" if place is axes[0] else "items, or users")
        place.xaxis.set_major_formatter(EngFormatter(sep=""))
        place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        )
        place.minorticks_off()
        place.margins(y=0.05)
        place.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0, 1))
        low, high = place.get_ylim()
        place.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, str | None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**RC, "svg.hashsalt": "scale", "svg.fonttype": "none"}):
        figure.savefig(target, format="svg", metadata=metadata, facecolor="white")


def _numbers(text: str) -> list[int]:
    return [] if text in ("", "none") else sorted({int(part.replace("_", "")) for part in text.split(",")})


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--items", type=_numbers, default="16000,100000,1000000,5000000", help="sizes, or none"
    )
    parser.add_argument("--users", type=_numbers, default="100000,1000000,10000000", help="sizes, or none")
    parser.add_argument(
        "--both", type=_numbers, default="1000000", help="sizes of items and users alike, or none"
    )
    parser.add_argument("--fixed-users", type=int, default=100_000, help="where the items grow")
    parser.add_argument("--fixed-items", type=int, default=100_000, help="where the users grow")
    parser.add_argument(
        "--norms", type=lambda text: text.split(","), default=["falling", "equal"], help="falling, equal"
    )
    parser.add_argument("--graph-up-to", type=int, default=100_000, help="items; above, no graph")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=15.0, help="begin no other case after these")
    parser.add_argument("--svg", type=Path, help="where to draw the curves")
    parser.add_argument(
        "--scratch", type=Path, default=Path(tempfile.gettempdir()), help="needs 5 GB at full size"
    )
    parser.add_argument("--artifacts", type=Path, help="measure what is published there; generate nothing")
    args = parser.parse_args(words)
    if not set(args.norms) <= {"falling", "equal"}:
        parser.error("--norms: falling, equal, or both")
    return args


def main() -> None:
    """Measure each case, print, draw."""
    args = parsed()
    began, load = time.monotonic(), os.getloadavg()
    results: list[Found] = []
    left_out: list[str] = []
    if args.artifacts is not None:
        results.append(published(args.artifacts))
    for case in [] if args.artifacts is not None else cases_of(args):
        needed = needed_bytes(case, args.dim)
        if time.monotonic() - began > 60 * args.minutes:
            left_out.append(f"{case}: {args.minutes:g} minutes are over")
        elif needed > _available():
            left_out.append(f"{case}: takes about {needed / 1e9:.0f} GB of memory")
        else:
            results.append(measured(case, args.dim, args.scratch))
            print(f"{time.monotonic() - began:6.0f} s  {case}", file=sys.stderr)
    print(table([row_of(found) for found in results]), file=sys.stderr)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    seconds = round(time.monotonic() - began)
    print(f"load average before: {load[0]:.1f}; {seconds} s in all", file=sys.stderr)
    if args.svg is not None and results:
        draw(results, args.svg)
    report = {
        "bench": "scale", "dim": args.dim, "seconds": seconds, "load_average_before": round(load[0], 2),
        "left_out": left_out, "cases": [asdict(found) for found in results],
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main()
