"""ONNX files written by hand, field by field (onnx.proto3), so that tests need no exporter and can write wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_KINDS = {"float32": 1, "int64": 7, "float64": 11}


def field(number: int, value: int | str | bytes) -> bytes:
    """One field: a number as varint, text and messages with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def tensor(name: str, array: npt.NDArray[Any], *more: bytes) -> bytes:
    """A TensorProto with raw data."""
    dims = b"".join(field(1, size) for size in array.shape)
    return b"".join(
        [dims, field(2, _KINDS[str(array.dtype)]), field(8, name), field(9, array.tobytes()), *more]
    )


def value(name: str, kind: str, shape: Sequence[int | str]) -> bytes:
    """A ValueInfoProto of a tensor; a dimension is a size or a name."""
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, _KINDS[kind]) + field(2, dims)))


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], *more: bytes, **ints: Any) -> bytes:
    """A NodeProto; keywords are integer attributes, or lists of them."""
    parts = [*(field(1, name) for name in inputs), *(field(2, name) for name in outputs), field(4, operator)]
    for name, given in ints.items():
        if isinstance(given, int):
            parts.append(field(5, field(1, name) + field(3, given) + field(20, 2)))
        else:
            parts.append(
                field(5, field(1, name) + b"".join(field(8, number) for number in given) + field(20, 7))
            )
    return b"".join([*parts, *more])


def graph(
    nodes: Sequence[bytes], weights: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]
) -> bytes:
    """A GraphProto."""
    return b"".join(
        field(number, part)
        for number, parts in ((1, nodes), (5, weights), (11, inputs), (12, outputs))
        for part in parts
    ) + field(2, "tower")


def model(of: bytes, *more: bytes, domain: str = "") -> bytes:
    """A ModelProto of operator set 13."""
    return b"".join([field(1, 8), field(7, of), field(8, field(1, domain) + field(2, 13)), *more])


def tower(
    items: npt.NDArray[np.float32] | None = None, weights: npt.NDArray[np.float32] | None = None
) -> bytes:
    """vector = mean of the history's rows of [0; items] (where given) + features @ weights (where given)."""
    nodes, tensors, inputs, parts = [], [], [], []
    if items is not None:
        table = np.concatenate((np.zeros((1, items.shape[1]), np.float32), items))
        tensors.append(tensor("table", table))
        inputs.append(value("history", "int64", (1, "n")))
        nodes += [
            node("Gather", ["table", "history"], ["rows"]),
            node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
        ]
        parts.append("mean")
    if weights is not None:
        tensors.append(tensor("weights", weights))
        inputs.append(value("features", "float32", (1, len(weights))))
        nodes.append(node("MatMul", ["features", "weights"], ["told"]))
        parts.append("told")
    nodes.append(node("Sum", parts, ["vector"]))
    dim = (items if items is not None else weights).shape[1]  # type: ignore[union-attr]  # one of the two is given
    return model(graph(nodes, tensors, inputs, [value("vector", "float32", (1, dim))]))
