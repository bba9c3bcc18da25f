"""A tower's file is read with distrust before anything opens it."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx_files as files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.onnx_file import MAX_DEPTH, Malformed, check_onnx

ITEMS = np.ones((3, 2), np.float32)
VECTOR = files.value("vector", "float32", (1, 2))
HISTORY = files.value("history", "int64", (1, "n"))


def of_nodes(*nodes: bytes, weights: tuple[bytes, ...] = ()) -> bytes:
    return files.model(files.graph(nodes, weights, [HISTORY], [VECTOR]))


def nested(depth: int) -> bytes:
    inner = files.graph([], [], [], [])
    for _ in range(depth):
        attribute = files.field(1, "then_branch") + files.field(6, inner) + files.field(20, 5)
        inner = files.graph([files.node("If", ["x"], ["y"], files.field(5, attribute))], [], [], [])
    return files.model(
        files.graph(
            [files.node("If", ["x"], ["y"], files.field(5, files.field(1, "then_branch") + files.field(6, inner)))],
            [], [HISTORY], [VECTOR],
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "inputs"),
    [
        (files.tower(ITEMS), {"history"}),
        (files.tower(None, ITEMS), {"features"}),
        (files.tower(ITEMS, ITEMS), {"history", "features"}),
    ],
)
def test_a_tower_says_what_it_reads(raw: bytes, inputs: set[str]) -> None:
    assert check_onnx(raw) == inputs


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no graph"),
        (b"\x93NUMPY\x01\x00", "not an ONNX model"),
        (files.tower(ITEMS)[:-40], "not an ONNX model"),
        (
            of_nodes(weights=(files.tensor("t", ITEMS, files.field(14, 1)),)),
            "keeps data outside the file",
        ),
        (
            of_nodes(weights=(files.tensor("t", ITEMS, files.field(13, files.field(1, "location"))),)),
            "keeps data outside the file",
        ),
        (
            of_nodes(
                files.node(
                    "Constant", [], ["c"],
                    files.field(5, files.field(5, files.tensor("t", ITEMS, files.field(14, 1)))),
                )
            ),
            "keeps data outside the file",
        ),
        (of_nodes(files.node("FusedGelu", ["x"], ["y"], files.field(7, "com.microsoft"))), "com.microsoft"),
        (files.model(files.graph([], [], [HISTORY], [VECTOR]), domain="my.ops"), "my.ops"),
        (of_nodes(files.node("Loop", [], [])), "operator Loop"),
        (of_nodes(files.node("RandomNormal", [], [])), "equal inputs must give equal vectors"),
        (files.model(files.graph([], [], [HISTORY], [VECTOR]), files.field(25, b"")), "functions"),
        (files.model(files.graph([], [], [HISTORY], [VECTOR]), files.field(20, b"")), "training"),
        (nested(MAX_DEPTH + 1), "nested"),
        (
            files.model(files.graph([], [], [files.value("user", "int64", (1,))], [VECTOR])),
            "input 'user': a tower's inputs are history and features",
        ),
        (
            files.model(files.graph([], [], [files.value("history", "float32", (1, "n"))], [VECTOR])),
            "'history' must be int64",
        ),
        (files.model(files.graph([], [], [], [VECTOR])), "no input"),
        (files.model(files.graph([], [], [HISTORY], [])), "no output 'vector'"),
        (files.field(7, 3), "a number where a message belongs"),
    ],
)  # fmt: skip
def test_what_a_tower_must_not_be(raw: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        check_onnx(raw)


def test_weights_listed_as_inputs_are_no_inputs() -> None:
    """As files of IR versions before 4 list them."""
    weights = [files.tensor("table", ITEMS)]
    inputs = [HISTORY, files.value("table", "float32", (3, 2))]
    assert check_onnx(files.model(files.graph([], weights, inputs, [VECTOR]))) == {"history"}


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_judged(raw: bytes) -> None:
    with pytest.raises(Malformed):
        check_onnx(raw)


@given(st.integers(0, len(files.tower(ITEMS, ITEMS)) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_is_judged(at: int, bits: int) -> None:
    raw = bytearray(files.tower(ITEMS, ITEMS))
    raw[at] ^= bits
    with contextlib.suppress(Malformed):
        assert check_onnx(bytes(raw)) <= {"history", "features"}
