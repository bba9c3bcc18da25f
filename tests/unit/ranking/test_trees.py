"""Trees run over a pool at once give each row what walking them one by one gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.two_stage import TreeArrays
from service.recommender.ranking.trees import Forest

N_FEATURES = 4
Node = tuple[int, float, int, int, int, float]
Tree = list[Node]
VALUES = [float(np.float32(value)) for value in (-3.4e38, -1.5, -1e-38, 0.0, 1e-38, 0.5, 1.5, 2.25, 3.4e38)]
INPUTS = [*VALUES, math.nan, math.inf, -math.inf, float(np.nextafter(np.float32(0.5), np.float32(1)))]


def grown(draw: np.random.Generator, leaves: int) -> Tree:
    """A tree of any shape: a random leaf is split until there are so many."""
    nodes: list[list[float]] = [[-1, 0.0, 0, -1, -1, draw.normal()]]
    for _ in range(leaves - 1):
        at = draw.choice([place for place, node in enumerate(nodes) if node[0] < 0])
        nodes[at] = [
            int(draw.integers(N_FEATURES)), draw.choice(VALUES), int(draw.integers(2)), len(nodes), len(nodes) + 1, 0.0,
        ]  # fmt: skip
        nodes += [[-1, 0.0, 0, -1, -1, draw.normal()] for _ in range(2)]
    return [
        (int(f), float(t), int(r), int(lo), int(hi), float(np.float32(v))) for f, t, r, lo, hi, v in nodes
    ]


def symmetric(draw: np.random.Generator, depth: int) -> Tree:
    """A complete tree that asks the same on all of a level."""
    asked = [(draw.integers(N_FEATURES), draw.choice(VALUES), draw.integers(2)) for _ in range(depth)]
    nodes: Tree = []
    for level, (feature, threshold, nan_right) in enumerate(asked):
        for place in range(1 << level):
            child = (2 << level) - 1 + 2 * place
            nodes.append((int(feature), float(threshold), int(nan_right), child, child + 1, 0.0))
    return [*nodes, *((-1, 0.0, 0, -1, -1, float(np.float32(draw.normal()))) for _ in range(1 << depth))]


def arrays_of(trees: list[Tree], bias: float = 0.0) -> TreeArrays:
    columns = list(zip(*[node for tree in trees for node in tree], strict=True))
    feature, threshold, nan_right, left, right, value = columns
    return TreeArrays(
        np.concatenate(([0], np.cumsum([len(tree) for tree in trees]))).astype(np.int64),
        np.array(feature, np.int32),
        np.array(threshold, np.float32),
        np.array(nan_right, np.uint8),
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(value, np.float32),
        bias,
    )


def walked(trees: list[Tree], row: list[float], bias: float) -> float:
    """One row through the trees, node by node."""
    total = bias
    for tree in trees:
        at = 0
        while tree[at][0] >= 0:
            feature, threshold, nan_right, left, right, _ = tree[at]
            value = row[feature]
            goes_right = bool(nan_right) if math.isnan(value) else value > threshold
            at = right if goes_right else left
        total += tree[at][5]
    return total


def check(trees: list[Tree], rows: list[list[float]], bias: float) -> None:
    features = np.array(rows, np.float32).reshape(len(rows), N_FEATURES)
    arrays = arrays_of(trees, bias)
    assert arrays.fault(N_FEATURES) is None
    expected = [walked(trees, [float(value) for value in row], bias) for row in features]
    for laid_out in (features, np.asfortranarray(features)):
        np.testing.assert_allclose(Forest(arrays).scores(laid_out), expected, rtol=0, atol=1e-9)


rows = st.lists(st.lists(st.sampled_from(INPUTS), min_size=N_FEATURES, max_size=N_FEATURES), max_size=140)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), rows=rows)
def test_trees_of_any_shape(seed: int, sizes: list[int], rows: list[list[float]]) -> None:
    draw = np.random.default_rng(seed)
    check([grown(draw, leaves) for leaves in sizes], rows, 0.25)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), depths=st.lists(st.integers(0, 6), min_size=1, max_size=8), rows=rows)
def test_symmetric_trees_of_several_depths(seed: int, depths: list[int], rows: list[list[float]]) -> None:
    draw = np.random.default_rng(seed)
    check([symmetric(draw, depth) for depth in depths], rows, -1.5)


def test_trees_of_more_leaves_than_a_byte_counts() -> None:
    draw = np.random.default_rng(3)
    rows = [[float(value) for value in draw.normal(size=N_FEATURES)] for _ in range(70)]
    check([grown(draw, 700), grown(draw, 3)], rows, 0.0)
    check([symmetric(draw, 10), symmetric(draw, 2)], rows, 0.0)


def test_a_question_that_many_nodes_ask_is_asked_once() -> None:
    draw = np.random.default_rng(5)
    assert Forest(arrays_of([symmetric(draw, 6) for _ in range(20)])).n_questions <= 20 * 6


def test_a_tree_as_deep_as_it_has_leaves() -> None:
    chain: Tree = []
    for level in range(20):  # each asks on, to the right only
        chain += [(0, float(level), 0, 2 * level + 1, 2 * level + 2, 0.0), (-1, 0.0, 0, -1, -1, float(level))]
    chain.append((-1, 0.0, 0, -1, -1, 99.0))
    check([chain], [[value, 0.0, 0.0, 0.0] for value in (-1.0, 3.5, 19.5, 25.0)], 0.0)


@pytest.mark.parametrize(
    ("role", "change", "reason"),
    [
        ("tree_indptr", lambda a: a.__setitem__(0, 1), "must rise from 0"),
        ("tree_indptr", lambda a: a.__setitem__(1, 0), "must rise from 0"),
        ("tree_indptr", lambda a: a.__setitem__(2, 99), "must rise from 0"),
        ("tree_feature", lambda a: a.__setitem__(0, N_FEATURES), "outside -1..3"),
        ("tree_feature", lambda a: a.__setitem__(0, -2), "outside -1..3"),
        ("tree_nan_right", lambda a: a.__setitem__(0, 2), "0 or 1"),
        ("tree_left", lambda a: a.__setitem__(0, 0), "after its node"),
        ("tree_left", lambda a: a.__setitem__(0, 10_000), "after its node"),
        ("tree_right", lambda a: a.__setitem__(0, -1), "after its node"),
        ("tree_left", lambda a: a.__setitem__(-1, 0), "a leaf has a child"),
        ("tree_right", lambda a: a.__setitem__(0, 1), "child of exactly one"),
    ],
)
def test_what_is_no_tree_is_found_out(role: str, change: object, reason: str) -> None:
    arrays = arrays_of([symmetric(np.random.default_rng(1), 2), symmetric(np.random.default_rng(2), 1)])
    by_role = {name: array.copy() for name, array in arrays.by_role().items()}
    assert callable(change)
    change(by_role[role])
    fault = TreeArrays.of(by_role, 0.0).fault(N_FEATURES)
    assert fault is not None
    assert fault[0] == role
    assert reason in fault[1]


def test_more_leaves_than_can_be_run_are_found_out() -> None:
    draw = np.random.default_rng(1)
    many = [grown(draw, 300), *([[(-1, 0.0, 0, -1, -1, 1.0)]] * 600)]
    fault = arrays_of(many).fault(N_FEATURES)
    assert fault is not None
    assert "more than can be run" in fault[1]
