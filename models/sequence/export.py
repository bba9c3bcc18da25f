"""The encoder as ONNX: one history in, its vector out.

Written node by node rather than traced: what it does for one history without padding is less than what training does,
and the last block answers for the last place alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from models.sequence.encoder import HIDDEN, AttentionBlock, Encoder, GatedBlock

OPSET = 18
_IR_VERSION = 9


def tower_of(encoder: Encoder) -> bytes:
    """ONNX: `history` int64 (1, n), tokens (position of an item plus one), oldest first, n from 1 to the encoder's
    length, a single 0 for none; to `vector` float32 (1, dim)."""
    graph = _Graph()
    tokens = graph.op("Squeeze", "history", graph.ints([0]))
    scaled = _array(encoder.embedding.weight) * np.float32(math.sqrt(encoder.dim))
    hidden = graph.op("Gather", graph.array(scaled), tokens)
    count = graph.op("Squeeze", graph.op("Shape", tokens), graph.ints([0]))
    places = graph.op("Range", graph.scalar(0), count, graph.scalar(1))
    known = graph.op("Not", graph.op("Equal", tokens, graph.scalar(0)))
    last = graph.ints([-1])
    for number, block in enumerate(encoder.blocks, 1):
        asking = graph.op("Gather", places, last) if number == len(encoder.blocks) else places
        asked = graph.op("Gather", hidden, last) if number == len(encoder.blocks) else hidden
        distance = graph.op("Sub", graph.op("Unsqueeze", asking, graph.ints([1])), places)
        itself = graph.op("Equal", distance, graph.scalar(0))
        earlier = graph.op("And", graph.op("Greater", distance, graph.scalar(0)), known)
        seen = graph.op("Or", itself, earlier)
        near = graph.op("Clip", distance, graph.scalar(0), graph.scalar(encoder.length - 1))
        if isinstance(block, GatedBlock):
            hidden = _gated(graph, block, hidden, asked, near, seen)
        else:
            assert isinstance(block, AttentionBlock)
            hidden = _attention(graph, block, hidden, asked, near, seen)
    graph.norm(encoder.norm, hidden, output="vector")
    return graph.serialized(encoder.dim)


def _attention(graph: _Graph, block: AttentionBlock, hidden: str, asked: str, near: str, seen: str) -> str:
    heads, dim = block.heads, block.outward.in_features
    query, key, value = np.split(_array(block.inward.weight), 3)
    read = graph.norm(block.first, hidden)
    asking = read if asked == hidden else graph.norm(block.first, asked)
    scores = graph.scores(
        graph.by_head(graph.times(asking, query), heads),
        graph.by_head(graph.times(read, key), heads),
        1.0 / math.sqrt(dim // heads),
        graph.op("Gather", graph.array(_array(block.bias)), near, axis=1),
    )
    weights = graph.op("Softmax", graph.op("Where", seen, scores, graph.number(HIDDEN)), axis=-1)
    mixed = graph.together(graph.op("MatMul", weights, graph.by_head(graph.times(read, value), heads)), dim)
    hidden = graph.op("Add", asked, graph.times(mixed, _array(block.outward.weight)))
    wide = graph.op("Relu", graph.linear(block.wide, graph.norm(block.second, hidden)))
    return graph.op("Add", hidden, graph.linear(block.narrow, wide))


def _gated(graph: _Graph, block: GatedBlock, hidden: str, asked: str, near: str, seen: str) -> str:
    heads, dim = block.heads, block.outward.in_features
    read = graph.norm(block.first, hidden)
    asking = read if asked == hidden else graph.norm(block.first, asked)
    weights, offsets = (np.split(_array(part), 4) for part in (block.inward.weight, block.inward.bias))
    gate, query, key, value = (
        graph.silu(graph.op("Add", graph.times(side, weight), graph.array(offset)))
        for side, weight, offset in zip((asking, asking, read, read), weights, offsets, strict=True)
    )
    scores = graph.scores(
        graph.by_head(query, heads),
        graph.by_head(key, heads),
        1.0 / math.sqrt(dim // heads),
        graph.op("Gather", graph.array(_array(block.bias)), near, axis=1),
    )
    counted = graph.op("Where", seen, graph.silu(scores), graph.number(0.0))
    counted = graph.op("Mul", counted, graph.number(1.0 / block.length))
    mixed = graph.together(graph.op("MatMul", counted, graph.by_head(value, heads)), dim)
    gated = graph.op("Mul", graph.norm(block.second, mixed), gate)
    return graph.op("Add", asked, graph.linear(block.outward, gated))


class _Graph:
    """Nodes and constants; every method gives the name of what it adds."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def array(self, values: npt.NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def ints(self, values: list[int]) -> str:
        return self.array(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        return self.array(np.array(value, np.int64))

    def number(self, value: float) -> str:
        return self.array(np.array(value, np.float32))

    def norm(self, layer: torch.nn.LayerNorm, x: str, output: str | None = None) -> str:
        weight, offset = self.array(_array(layer.weight)), self.array(_array(layer.bias))
        return self.op("LayerNormalization", x, weight, offset, output=output, axis=-1, epsilon=layer.eps)

    def times(self, x: str, weight: npt.NDArray[np.float32]) -> str:
        """`x` times a linear layer's weight, (out, in)."""
        return self.op("MatMul", x, self.array(weight.T))

    def linear(self, layer: torch.nn.Linear, x: str) -> str:
        return self.op("Add", self.times(x, _array(layer.weight)), self.array(_array(layer.bias)))

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def by_head(self, x: str, heads: int) -> str:
        """(n, dim) to (heads, n, dim / heads)."""
        return self.op("Transpose", self.op("Reshape", x, self.ints([0, heads, -1])), perm=[1, 0, 2])

    def together(self, x: str, dim: int) -> str:
        """(heads, n, dim / heads) to (n, dim)."""
        return self.op("Reshape", self.op("Transpose", x, perm=[1, 0, 2]), self.ints([0, dim]))

    def scores(self, query: str, key: str, scale: float, bias: str) -> str:
        product = self.op("MatMul", query, self.op("Transpose", key, perm=[0, 2, 1]))
        return self.op("Add", self.op("Mul", product, self.number(scale)), bias)

    def serialized(self, dim: int) -> bytes:
        graph = helper.make_graph(
            self._nodes,
            "sequence",
            [helper.make_tensor_value_info("history", TensorProto.INT64, [1, "n"])],
            [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, dim])],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(model)
        raw: bytes = model.SerializeToString()
        return raw


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.detach().numpy(), np.float32)
