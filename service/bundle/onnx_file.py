"""Checks an ONNX file before the runtime opens it: only self-contained graphs of standard, terminating operators.

ONNX is a protocol buffer (https://onnx.ai/onnx/repo-docs/IR.html, `onnx.proto3`). This walks the encoded message
without building it: nothing the file says is run, allocated or opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import BundleRefused

MAX_BYTES = 1 << 30
MAX_FIELDS = 500_000
MAX_NODES = 20_000
MAX_DEPTH = 16
_INT64, _FLOAT = 7, 1
_INPUTS = {"history": _INT64, "features": _FLOAT}
_OUTPUT = "vector"
_DOMAINS = frozenset({"", "ai.onnx"})
_ENDLESS = frozenset({"Loop", "Scan"})
_BY_CHANCE = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The file is no ONNX model, or one that a tower must not be; the message says why."""


@dataclass(slots=True)
class _Found:
    """What the walk has come across."""

    fields: int = 0
    nodes: int = 0
    initializers: set[str] = field(default_factory=set)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    graphs: int = 0


def check_onnx_file(path: Path, name: str) -> frozenset[str]:
    """Inputs of a tower that is fit to be opened: `history`, `features` or both. Raises BundleRefused."""
    if path.stat().st_size > MAX_BYTES:
        raise BundleRefused(name, f"larger than {MAX_BYTES} bytes")
    try:
        return check_onnx(path.read_bytes())
    except Malformed as error:
        raise BundleRefused(name, str(error)) from error


def check_onnx(raw: bytes) -> frozenset[str]:
    """As `check_onnx_file`, of the bytes. Raises Malformed."""
    found = _Found()
    _model(memoryview(raw), found)
    if not found.graphs:
        raise Malformed("not an ONNX model: it holds no graph")
    inputs = {name: kind for name, kind in found.inputs.items() if name not in found.initializers}
    for name, kind in inputs.items():
        if name not in _INPUTS:
            raise Malformed(f"input {name!r:.60}: a tower's inputs are {' and '.join(_INPUTS)}")
        if kind != _INPUTS[name]:
            raise Malformed(f"input {name!r} must be {'int64' if _INPUTS[name] == _INT64 else 'float32'}")
    if not inputs:
        raise Malformed(f"no input: a tower takes {' or '.join(_INPUTS)}")
    if found.outputs.get(_OUTPUT) != _FLOAT:
        raise Malformed(f"no output {_OUTPUT!r} of float32")
    return frozenset(inputs)


def _model(message: memoryview, found: _Found) -> None:
    for number, value in _fields(message, found):
        if number == 7:
            found.graphs += 1
            _graph(_as_bytes(value), found, 0)
        elif number == 8:
            for inner, text in _fields(_as_bytes(value), found):
                if inner == 1:
                    _standard(text)
        elif number == 20:
            raise Malformed("holds training information")
        elif number == 25:
            raise Malformed("holds functions of its own: export it with them inlined")


def _graph(message: memoryview, found: _Found, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Malformed(f"graphs nested more than {MAX_DEPTH} deep")
    for number, value in _fields(message, found):
        if number == 1:
            _node(_as_bytes(value), found, depth)
        elif number == 5:
            name = _tensor(_as_bytes(value), found)
            if depth == 0:
                found.initializers.add(name)
        elif number == 15:
            _sparse(_as_bytes(value), found)
        elif number in (11, 12) and depth == 0:
            name, kind = _value(_as_bytes(value), found)
            (found.inputs if number == 11 else found.outputs)[name] = kind


def _node(message: memoryview, found: _Found, depth: int) -> None:
    found.nodes += 1
    if found.nodes > MAX_NODES:
        raise Malformed(f"more than {MAX_NODES} operators")
    for number, value in _fields(message, found):
        if number == 4:
            operator = _text(value)
            if operator in _ENDLESS:
                raise Malformed(f"operator {operator}: a tower's work must be bounded by its input")
            if operator in _BY_CHANCE:
                raise Malformed(f"operator {operator}: equal inputs must give equal vectors")
        elif number == 7:
            _standard(value)
        elif number == 5:
            _attribute(_as_bytes(value), found, depth)


def _attribute(message: memoryview, found: _Found, depth: int) -> None:
    into: dict[int, Callable[[memoryview, _Found], object]] = {
        5: _tensor, 10: _tensor, 22: _sparse, 23: _sparse,
    }  # fmt: skip
    for number, value in _fields(message, found):
        if number in (6, 11):
            _graph(_as_bytes(value), found, depth + 1)
        elif number in into:
            into[number](_as_bytes(value), found)


def _tensor(message: memoryview, found: _Found) -> str:
    name = ""
    for number, value in _fields(message, found):
        if number == 8:
            name = _text(value)
        elif number == 13 or (number == 14 and value != 0):
            raise Malformed("keeps data outside the file")
    return name


def _sparse(message: memoryview, found: _Found) -> None:
    for number, value in _fields(message, found):
        if number in (1, 2):
            _tensor(_as_bytes(value), found)


def _value(message: memoryview, found: _Found) -> tuple[str, int]:
    """Name and element type of an input or output; type 0 for what is no tensor."""
    name, kind = "", 0
    for number, value in _fields(message, found):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for of_type, tensor in _fields(_as_bytes(value), found):
                if of_type == 1:
                    for inner, code in _fields(_as_bytes(tensor), found):
                        if inner == 1 and isinstance(code, int):
                            kind = code
    return name, kind


def _standard(value: int | memoryview) -> None:
    domain = _text(value)
    if domain not in _DOMAINS:
        raise Malformed(f"operators of {domain!r:.60}: only standard ONNX ones can be run")


def _text(value: int | memoryview) -> str:
    return bytes(_as_bytes(value)[:256]).decode("utf-8", "replace")


def _as_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Malformed("not an ONNX model: a number where a message belongs")
    return value


def _fields(message: memoryview, found: _Found) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of each field: a number, or the bytes of a length-delimited one."""
    at, end = 0, len(message)
    while at < end:
        found.fields += 1
        if found.fields > MAX_FIELDS:
            raise Malformed(f"more than {MAX_FIELDS} fields: keep weights as raw data")
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = 8 if wire == _FIXED64 else 4
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire not in (_FIXED64, _FIXED32):
            raise Malformed("not an ONNX model: not a protocol buffer")
        if size > end - at or number == 0:
            raise Malformed("not an ONNX model: it ends early, or is no protocol buffer")
        if wire == _BYTES:
            yield number, message[at : at + size]
        else:
            yield number, 0
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise Malformed("not an ONNX model: not a protocol buffer")
