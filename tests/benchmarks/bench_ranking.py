"""What ranking costs a request: ways to run the trees, and the stage as it serves.

    .venv/bin/python tests/benchmarks/bench_ranking.py [--artifacts DIR]

First 300 rows of 40 features through 100 and 200 trees, as LightGBM grows them (31 leaves) and as CatBoost does
(symmetric, depth 6): by the service's own code, by the library, and by onnxruntime's TreeEnsembleRegressor. All are
checked to agree. With `--artifacts`, the published bundle's users too: microseconds to gather a pool of 300, to make
features and to run the trees; a bundle without a two_stage model gets one with 100 symmetric trees over its first 30
features and every other model as a source. Medians and minima of repeats on one thread; a busy machine shows in their
distance. A table to stderr, one JSON line to stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from catboost import CatBoostRegressor
from lightgbm import Dataset as LightGbmData
from lightgbm import train as grow
from onnx import TensorProto, helper
from threadpoolctl import threadpool_limits

from models.ranker.export import from_catboost, from_lightgbm
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.bundle.two_stage import SourceSpec, TreeArrays
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.ranking.features import FeatureMaker, FeatureSettings, Static
from service.recommender.ranking.gather import Gatherer
from service.recommender.ranking.trees import Forest
from service.recommender.user_state import UserState

ROWS, FEATURES, REPEATS = 300, 40, 300
N_CANDIDATES, QUOTA, N_FEATURES, N_USERS, ROUNDS = 300, 150, 30, 200, 7
Floats = npt.NDArray[np.float32]
Micro = dict[str, float]


def timed(work: Callable[[], object]) -> Micro:
    """Microseconds of one run, after a few to warm up."""
    seconds = []
    for number in range(REPEATS):
        began = time.perf_counter()
        work()
        if number >= 10:
            seconds.append(time.perf_counter() - began)
    return {"p50": round(statistics.median(seconds) * 1e6, 1), "min": round(min(seconds) * 1e6, 1)}


def onnx_of(trees: TreeArrays) -> onnxruntime.InferenceSession:
    """The same trees as ONNX's TreeEnsembleRegressor, on one thread."""
    tree_of = np.repeat(np.arange(len(trees)), np.diff(trees.indptr))
    place = np.arange(len(tree_of)) - trees.indptr[tree_of]
    leaf = trees.feature < 0
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, base_values=[trees.bias],
        nodes_treeids=tree_of.tolist(), nodes_nodeids=place.tolist(),
        nodes_featureids=np.where(leaf, 0, trees.feature).tolist(), nodes_values=trees.threshold.tolist(),
        nodes_modes=["LEAF" if one else "BRANCH_LEQ" for one in leaf.tolist()],
        nodes_truenodeids=np.where(leaf, 0, trees.left).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, trees.right).tolist(),
        nodes_missing_value_tracks_true=(1 - trees.nan_right.astype(int)).tolist(),
        target_treeids=tree_of[leaf].tolist(), target_nodeids=place[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()), target_weights=trees.value[leaf].tolist(),
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def tree_ways() -> dict[str, Micro]:
    """Run the same rows through the same trees in each way."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(20_000, FEATURES)).astype(np.float32)
    x[draw.random(x.shape) < 0.05] = np.nan
    known = np.nan_to_num(x)
    y = known[:, :10].sum(axis=1) + known[:, 0] * known[:, 1] + draw.normal(size=len(x))
    rows, by_feature = x[:ROWS], np.asfortranarray(x[:ROWS])
    found: dict[str, Micro] = {}
    for count in (100, 200):
        settings = {"objective": "regression", "num_leaves": 31, "verbose": -1, "num_threads": 1, "seed": 1}
        boosted = grow(settings, LightGbmData(x, y), count)
        with tempfile.TemporaryDirectory() as folder:
            cat = CatBoostRegressor(
                iterations=count, depth=6, verbose=0, thread_count=1, random_seed=1, train_dir=folder
            )
            cat.fit(x, y)
        ways: list[tuple[str, TreeArrays, Callable[[], Any]]] = [
            ("31 leaves", from_lightgbm(boosted), partial(boosted.predict, rows, num_threads=1)),
            ("depth 6", from_catboost(cat), partial(cat.predict, rows, thread_count=1)),
        ]  # fmt: skip
        for shape, trees, native in ways:
            forest, session = Forest(trees), onnx_of(trees)
            ours, theirs = forest.scores(by_feature), native()
            assert np.abs(ours - theirs).max() < 1e-5
            assert np.abs(ours - session.run(["y"], {"x": rows})[0][:, 0]).max() < 1e-3
            name = f"{count} trees, {shape}"
            asked = f"{forest.n_questions} questions"
            found[f"{name}, service ({asked})"] = timed(partial(forest.scores, by_feature))
            found[f"{name}, library"] = timed(native)
            found[f"{name}, onnxruntime"] = timed(partial(session.run, ["y"], {"x": rows}))
    return found


def _stages(live: LiveBundle, history: int | None) -> tuple[Gatherer, FeatureMaker, Forest]:
    ranked = next((model.ranking for model in live.models.values() if model.ranking is not None), None)
    if ranked is not None:
        return ranked.gatherer, ranked.features, ranked.forest
    retrievers = {name: model.retriever for name, model in live.models.items() if name == model.name}
    sources = [SourceSpec(model=name, quota=QUOTA, history=history) for name in retrievers]
    gatherer = Gatherer(retrievers, sources, N_CANDIDATES)
    draw = np.random.default_rng(0)
    items = Static(tuple("abcdef"), draw.normal(size=(len(live.bundle.item_ids), 6)).astype(np.float32))
    every = FeatureMaker(live.bundle, retrievers, FeatureSettings(gatherer.sources, None, items)).names
    chosen = FeatureSettings(gatherer.sources, every[:N_FEATURES], items)
    maker = FeatureMaker(live.bundle, retrievers, chosen)
    samples = []
    for row in range(0, len(live.bundle.user_ids), max(1, len(live.bundle.user_ids) // 60)):
        user = UserState(row, live.bundle.history_of(row), live=False)
        pool, _ = gatherer.gather(user, Eligible(user.history, None))
        if pool is not None:
            samples.append(maker.of(user, pool))
    x = np.concatenate(samples)
    with tempfile.TemporaryDirectory() as folder:
        cat = CatBoostRegressor(
            iterations=100, depth=6, verbose=0, thread_count=1, random_seed=1, train_dir=folder
        )
        cat.fit(x, np.nan_to_num(x[:, 0]) + draw.normal(size=len(x)))
    return gatherer, maker, Forest(from_catboost(cat))


def stage_costs(artifacts: Path, history: int | None) -> dict[str, Micro]:
    """Microseconds by part of the stage over users spread through the bundle, each user's best of some rounds."""
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))
    gatherer, maker, forest = _stages(live, history)
    bundle = live.bundle
    users = [
        UserState(row, bundle.history_of(row), live=False)
        for row in np.linspace(0, len(bundle.user_ids) - 1, N_USERS).astype(int).tolist()
        if len(bundle.history_of(row))
    ]
    parts: dict[str, npt.NDArray[np.float64]] = {}
    first = live.models[gatherer.sources[0]].retriever
    sizes = []
    for round_ in range(ROUNDS):
        for number, user in enumerate(users):
            rules = Eligible(user.history, None)
            marks = [time.perf_counter()]
            first.retrieve(user, N_CANDIDATES, rules)
            marks.append(time.perf_counter())
            pool, _ = gatherer.gather(user, rules)
            marks.append(time.perf_counter())
            if pool is None:
                continue
            features = maker.of(user, pool)
            marks.append(time.perf_counter())
            forest.scores(features)
            marks.append(time.perf_counter())
            sizes.append(len(pool))
            for name, spent in zip(
                ("one source", "gather", "features", "trees"), np.diff(marks), strict=True
            ):
                best = parts.setdefault(name, np.full(len(users), np.inf))
                best[number] = min(best[number], spent)
        sys.stderr.write(f"round {round_ + 1} of {ROUNDS}\n")
    parts["gather + features + trees"] = parts["gather"] + parts["features"] + parts["trees"]
    parts["added to one source"] = parts["gather + features + trees"] - parts["one source"]
    known = np.isfinite(parts["trees"])
    return {
        f"{name} ({np.median(sizes):.0f} candidates, {len(maker.names)} features, {forest.n_trees} trees)": {
            "p50": round(float(np.median(cost[known])) * 1e6, 1),
            "min": round(float(cost[known].min()) * 1e6, 1),
        }
        for name, cost in parts.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifacts", type=Path)
    parser.add_argument("--history", type=int, help="newest items that item-to-item sources read")
    parser.add_argument("--stages-only", action="store_true", help="leave the ways to run trees out")
    args = parser.parse_args()
    with threadpool_limits(1):
        found = {} if args.stages_only else tree_ways()
        if args.artifacts is not None:
            found |= stage_costs(args.artifacts, args.history)
    for name, cost in found.items():
        sys.stderr.write(f"{name:75s} p50 {cost['p50']:8.1f} us   min {cost['min']:8.1f} us\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
