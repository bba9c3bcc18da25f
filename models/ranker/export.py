"""A library's trees as plain arrays, by which the service runs them without the library."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from service.bundle.two_stage import TreeArrays


class _Nodes:
    """Nodes in the order they are met: a parent before its children."""

    def __init__(self) -> None:
        self.indptr = [0]
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("feature", "threshold", "nan_right", "left", "right", "value")
        }

    def add(self, feature: int, threshold: float, nan_right: bool, value: float) -> int:
        """Add a node without children; returns its place in its tree."""
        node = (feature, threshold, int(nan_right), -1, -1, value)
        for column, entry in zip(self.columns.values(), node, strict=True):
            column.append(entry)
        return len(self.columns["feature"]) - 1 - self.indptr[-1]

    def link(self, parent: int, left: int, right: int) -> None:
        """Name a node's children."""
        at = self.indptr[-1] + parent
        self.columns["left"][at], self.columns["right"][at] = left, right

    def end_tree(self) -> None:
        self.indptr.append(len(self.columns["feature"]))

    def arrays(self, bias: float) -> TreeArrays:
        kinds = (np.int32, np.float32, np.uint8, np.int32, np.int32, np.float32)
        feature, threshold, nan_right, left, right, value = (
            np.array(column, kind) for column, kind in zip(self.columns.values(), kinds, strict=True)
        )
        indptr = np.array(self.indptr, np.int64)
        return TreeArrays(indptr, feature, threshold, nan_right, left, right, value, bias)


def from_lightgbm(booster: Any, n_trees: int | None = None) -> TreeArrays:
    """Read a `lightgbm.Booster` without categorical features. `n_trees`: the first so many; None: all.

    LightGBM asks `value <= threshold` in float64; of float32 values the same hold against the largest float32 that is
    not above the threshold. What NaN does, it says by node (docs: missing_type, default_left).
    """
    model = booster.dump_model(num_iteration=n_trees or -1)
    nodes = _Nodes()
    for tree in model["tree_info"]:
        _lightgbm_node(tree["tree_structure"], nodes)
        nodes.end_tree()
    return nodes.arrays(0.0)


def _lightgbm_node(node: Mapping[str, Any], nodes: _Nodes) -> int:
    if "leaf_value" in node:
        return nodes.add(-1, 0.0, False, float(node["leaf_value"]))
    if node["decision_type"] != "<=":
        raise ValueError(f"a split by {node['decision_type']!r}: features must be numbers")
    threshold = _at_most(float(node["threshold"]))
    if node["missing_type"] == "NaN":
        nan_right = not node["default_left"]
    elif node["missing_type"] == "None":  # NaN is read as 0
        nan_right = float(node["threshold"]) < 0.0
    else:
        raise ValueError(f"missing_type {node['missing_type']!r}: train without zero_as_missing")
    at = nodes.add(int(node["split_feature"]), threshold, nan_right, 0.0)
    left = _lightgbm_node(node["left_child"], nodes)
    nodes.link(at, left, _lightgbm_node(node["right_child"], nodes))
    return at


def _at_most(threshold: float) -> float:
    """Round down to a float32; beyond its range to the ends of it."""
    ends = np.finfo(np.float32)
    clipped = np.float32(np.clip(threshold, float(ends.min), float(ends.max)))
    return float(np.nextafter(clipped, np.float32(-np.inf)) if float(clipped) > threshold else clipped)


def from_catboost(model: Any) -> TreeArrays:
    """Read a CatBoost model of symmetric trees over numbers. It asks `value > border` of float32 values."""
    with tempfile.TemporaryDirectory(prefix="reco-ranker-") as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        document = json.loads(path.read_text("utf-8"))
    treatments = {
        entry["flat_feature_index"]: entry.get("nan_value_treatment", "AsIs")
        for entry in document["features_info"]["float_features"]
    }
    places = [entry["flat_feature_index"] for entry in document["features_info"]["float_features"]]
    scale, biases = document["scale_and_bias"]
    nodes = _Nodes()
    for tree in document["oblivious_trees"]:
        splits = tree["splits"] or []
        if any(split["split_type"] != "FloatFeature" for split in splits):
            raise ValueError("a split by something other than a number: features must be numbers")
        asked = [
            (places[split["float_feature_index"]], float(np.float32(split["border"]))) for split in splits
        ]
        values = [scale * float(value) for value in tree["leaf_values"]]
        _symmetric_node(asked, values, 0, 0, treatments, nodes)
        nodes.end_tree()
    return nodes.arrays(float(np.sum(biases)))


def _symmetric_node(
    asked: list[tuple[int, float]],
    values: list[float],
    level: int,
    leaf: int,
    treatments: Mapping[int, str],
    nodes: _Nodes,
) -> int:
    """Unfold a symmetric tree; a leaf's number has the answer of level d as its d-th bit."""
    if level == len(asked):
        return nodes.add(-1, 0.0, False, values[leaf])
    feature, border = asked[level]
    at = nodes.add(feature, border, treatments[feature] == "AsTrue", 0.0)
    left = _symmetric_node(asked, values, level + 1, leaf, treatments, nodes)
    nodes.link(at, left, _symmetric_node(asked, values, level + 1, leaf | 1 << level, treatments, nodes))
    return at


def settled(trees: TreeArrays, n_features: int) -> TreeArrays:
    """Check them as a bundle's reader would. Raises ValueError."""
    if fault := trees.fault(n_features):
        raise ValueError(f"{fault[0]}: {fault[1]}")
    return trees
