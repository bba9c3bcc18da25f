"""What is handed to compiled code is checked before it is touched; all sets of instructions give the same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from service.native import INSTRUCTIONS, Forest, Scan, Sums, top

VECTORS = np.eye(4, dtype=np.float32)
ROWS = np.arange(4, dtype=np.int32)
SCAN = Scan(VECTORS, False)
SUMS = Sums(4, None, dense=VECTORS)
QUERY = VECTORS[0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((QUERY.astype(np.float64), 1, None, None), TypeError),
        ((QUERY[:3], 1, None, None), ValueError),
        ((list(QUERY), 1, None, None), TypeError),
        ((np.zeros(8, np.float32)[::2], 1, None, None), TypeError),
        ((QUERY, "1", None, None), TypeError),
        ((QUERY, 1, np.array([4], np.int32), None), IndexError),
        ((QUERY, 1, np.array([0, -1], np.int32), None), IndexError),
        ((QUERY, 1, np.array([0], np.int64), None), TypeError),
        ((QUERY, 1, None, np.ones(3, np.bool_)), ValueError),
        ((QUERY, 1, None, np.ones(4, np.int8)), TypeError),
        ((QUERY, 1), TypeError),
    ],
)
def test_a_search_refuses_what_does_not_fit(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        SCAN.search(*arguments)
    assert SCAN.search(QUERY, 9, ROWS[:1], None)[0].tolist() == [1, 2, 3]  # and nothing of it stays behind


@pytest.mark.parametrize(
    ("rows", "positions"),
    [
        (ROWS[:3], ROWS),
        (ROWS + 1, ROWS),
        (ROWS, ROWS + 1),
        (ROWS, ROWS - 2),
    ],
)
def test_vectors_whose_rows_do_not_fit_are_refused(rows: Any, positions: Any) -> None:
    with pytest.raises(ValueError, match=r"row|vector"):
        Scan(VECTORS, False, rows, positions)


@pytest.mark.parametrize(
    "arrays",
    [
        {"dense": VECTORS[:3].copy()},
        {"indptr": np.array([0, 1, 1, 1, 2]), "indices": ROWS[:1], "weights": np.ones(1, np.float32)},
        {"indptr": np.array([0, 2, 1, 2, 2]), "indices": ROWS[:2], "weights": np.ones(2, np.float32)},
        {"indptr": np.array([0, 0, 0, 0, 1]), "indices": ROWS[:1] + 4, "weights": np.ones(1, np.float32)},
        {"indptr": np.array([0, 0, 0, 0, 1]), "indices": ROWS[:1] - 1, "weights": np.ones(1, np.float32)},
    ],
)
def test_a_matrix_that_is_none_of_so_many_items_is_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="items"):
        Sums(4, None, **arrays)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: SUMS.scores(np.array([4], np.int32)),
        lambda: SUMS.best(np.array([-1], np.int32), 1, None, None),
        lambda: SUMS.best(ROWS, 1, np.array([4], np.int32), None),
        lambda: SUMS.pairs(ROWS, np.array([4], np.int32)),
        lambda: top(QUERY, 1, np.array([9], np.int32), None),
    ],
)
def test_rows_that_the_catalogue_lacks_are_refused(ask: Any) -> None:
    with pytest.raises(IndexError):
        ask()


def forest(**changed: Any) -> Forest:
    """A root that asks whether feature 0 is above 0, and two leaves."""
    arrays: dict[str, Any] = {
        "indptr": np.array([0, 3]),
        "feature": np.array([0, -1, -1], np.int32),
        "threshold": np.zeros(3, np.float32),
        "nan_right": np.zeros(3, np.uint8),
        "left": np.array([1, -1, -1], np.int32),
        "right": np.array([2, -1, -1], np.int32),
        "value": np.array([0.0, 1.0, 2.0], np.float32),
        "bias": 0.5,
    }
    return Forest(**(arrays | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"indptr": np.array([0, 4])},
        {"indptr": np.array([1, 3])},
        {"indptr": np.array([0, 2, 1, 3])},
        {"left": np.array([0, -1, -1], np.int32)},
        {"right": np.array([3, -1, -1], np.int32)},
        {"feature": np.array([0, 0, -1], np.int32)},
        {"feature": np.array([-1, -1, -1], np.int32)},
        {"threshold": np.full(3, np.nan, np.float32)},
        {"value": np.zeros(2, np.float32)},
    ],
)
def test_arrays_that_are_no_trees_are_refused(changed: dict[str, Any]) -> None:
    assert forest().scores(np.array([[1.0, -1.0, np.nan]], np.float32)).tolist() == [2.5, 1.5, 1.5]
    with pytest.raises(ValueError, match=r"trees|fit"):
        forest(**changed)


def test_a_forest_refuses_fewer_columns_than_it_asks_for() -> None:
    with pytest.raises(ValueError, match="columns"):
        forest().scores(np.empty((0, 5), np.float32))


PROGRAM = """
import json
import numpy as np
from service.native import INSTRUCTIONS, Forest, Scan

draw = np.random.default_rng(7)
found = []
for dim in (1, 6, 33, 64, 130):
    for squared in (False, True):
        vectors = (draw.normal(size=(999, dim)) * draw.pareto(2.0, size=(999, 1))).astype(np.float32)
        scan = Scan(vectors, squared)
        for query in draw.normal(size=(5, dim)).astype(np.float32):
            rows, scores = scan.search(query, 20, np.arange(0, 999, 7, dtype=np.int32), None)
            found += [rows.tolist(), scores.tolist()]
        starts = np.linspace(0, 999, 61).astype(np.int32)
        centroids = np.add.reduceat(vectors, starts[:-1])
        celled = Scan(vectors, squared, None, None, Scan(centroids, squared), starts)
        for query in draw.normal(size=(5, dim)).astype(np.float32):
            for n_probe in (1, 9):
                rows, scores = celled.search_cells(query, 20, np.arange(0, 999, 7, dtype=np.int32), None, n_probe)
                found += [rows.tolist(), scores.tolist(), celled.read]
size = 101
feature = np.where(np.arange(size) < 50, draw.integers(0, 3, size), -1).astype(np.int32)
place = np.arange(size, dtype=np.int32)
left, right = np.where(feature < 0, -1, 2 * place + 1), np.where(feature < 0, -1, 2 * place + 2)
trees = Forest(
    np.array([0, size]), feature, draw.normal(size=size).astype(np.float32), draw.integers(0, 2, size).astype(np.uint8),
    left.astype(np.int32), right.astype(np.int32), draw.normal(size=size).astype(np.float32), 0.0,
)
columns = draw.normal(size=(3, 173)).astype(np.float32)
columns[draw.random((3, 173)) < 0.1] = np.nan
found.append(trees.scores(columns).tolist())
print(json.dumps([INSTRUCTIONS, found]))
"""


def test_every_set_of_instructions_gives_the_same_bits() -> None:
    told = {}
    for wanted in ("plain", "avx2", INSTRUCTIONS):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"RECO_NATIVE_INSTRUCTIONS": wanted},
            capture_output=True,
            text=True,
            check=True,
        )
        used, found = json.loads(done.stdout)
        told[used] = found
    assert set(told) >= {"plain", INSTRUCTIONS}
    assert all(found == told["plain"] for found in told.values())
