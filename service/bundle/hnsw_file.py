"""A saved hnswlib index, read by our own eyes before native code sees it.

hnswlib trusts its file: a crafted one writes past the heap or answers wrongly without a word (hnswlib#673). So the
whole structure is checked here, every link of it, and its vectors against the bundle's own, bit for bit.

Layout (hnswlib 0.8, HierarchicalNSW::saveIndex): a 96-byte header; one fixed-size record an element (link count and
links of level 0, the vector, the label); then for each element the byte length of its upper link lists and the lists.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import BundleRefused

_HEADER = struct.Struct("<6QiI3QdQ")


class _Header(NamedTuple):
    offset_level0: int
    max_elements: int
    n_elements: int
    record_bytes: int
    label_offset: int
    data_offset: int
    max_level: int
    entry_point: int
    max_m: int
    max_m0: int
    m: int
    level_mult: float
    ef_construction: int


def check_hnsw_file(
    path: Path, name: str, vectors: npt.NDArray[np.float32], m: int, ef_construction: int
) -> None:
    """Refuse an index file that is not a sound hnswlib graph over exactly these vectors.

    vectors: float32 (n, dim); the element labelled `i` must hold `vectors[i]`. Raises BundleRefused.
    """
    n, dim = vectors.shape
    with path.open("rb") as file:
        raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        raise BundleRefused(name, "too short for an index header")
    header = _Header(*_HEADER.unpack(raw))
    links0_bytes = 4 * header.max_m0 + 4
    expected = {
        "offset_level0": 0, "n_elements": n, "m": m, "max_m": m, "max_m0": 2 * m, "ef_construction": ef_construction,
        "data_offset": links0_bytes, "label_offset": links0_bytes + 4 * dim, "record_bytes": links0_bytes + 4 * dim + 8,
    }  # fmt: skip
    for field, value in expected.items():
        if getattr(header, field) != value:
            raise BundleRefused(name, f"index header: {field} is {getattr(header, field)}, expected {value}")
    if header.max_elements < n or header.max_elements > 2 * n + 1024:
        raise BundleRefused(name, f"index header: max_elements is {header.max_elements} for {n} elements")
    if header.entry_point >= n or not 0 <= header.max_level < 64:
        raise BundleRefused(name, "index header: entry point or level out of range")
    body = np.memmap(path, np.uint8, mode="r")
    records_end = _HEADER.size + n * header.record_bytes
    if len(body) < records_end + 4 * n:
        raise BundleRefused(name, f"{len(body)} bytes do not hold {n} elements")
    _check_records(body[_HEADER.size : records_end], name, vectors, header)
    _check_upper_levels(body, records_end, name, header)


def _check_records(
    body: npt.NDArray[np.uint8], name: str, vectors: npt.NDArray[np.float32], header: _Header
) -> None:
    n, dim = vectors.shape
    record = np.dtype([("links", "<u4", (1 + header.max_m0,)), ("vector", "<u4", (dim,)), ("label", "<u8")])
    records = body.view(record)
    labelled = np.zeros(n, bool)
    bits = vectors.view(np.uint32)
    step = max(1, (1 << 24) // header.record_bytes)
    for first in range(0, n, step):
        part = records[first : first + step]
        _check_links(part["links"], name, n, header.max_m0)
        labels = part["label"]
        if (labels >= n).any():
            raise BundleRefused(name, "a label is out of range")
        labelled[labels] = True
        if not np.array_equal(part["vector"], bits[labels]):
            raise BundleRefused(name, "the index holds other vectors than the bundle")
    if not labelled.all():
        raise BundleRefused(name, "a label occurs twice")


def _check_links(links: npt.NDArray[Any], name: str, n: int, most: int) -> None:
    counts = links[:, 0]
    if (counts > most).any():  # also catches hnswlib's delete mark, kept in the count's third byte
        raise BundleRefused(name, "an element has more links than allowed, or is marked deleted")
    used = np.arange(most) < counts[:, None]
    if (links[:, 1:][used] >= n).any():
        raise BundleRefused(name, "a link points outside the index")


def _check_upper_levels(body: npt.NDArray[np.uint8], start: int, name: str, header: _Header) -> None:
    list_bytes = 4 * header.max_m + 4
    view = np.asarray(body).data.toreadonly()
    levels = np.zeros(header.n_elements, np.int32)
    places: list[tuple[int, int]] = []
    at, total = start, len(body)
    unpack = struct.Struct("<I").unpack_from
    for element in range(header.n_elements):
        if at + 4 > total:
            raise BundleRefused(name, "upper link lists end early")
        (size,) = unpack(view, at)
        at += 4
        if size:
            if size % list_bytes or at + size > total or size // list_bytes > header.max_level:
                raise BundleRefused(name, f"upper link lists of element {element} have a wrong length")
            levels[element] = size // list_bytes
            places.append((element, at))
            at += size
    if at != total:
        raise BundleRefused(name, f"{total - at} bytes too many")
    if levels[header.entry_point] != header.max_level:
        raise BundleRefused(name, "the entry point is not on the top level")
    for element, place in places:
        lists = np.frombuffer(view[place : place + levels[element] * list_bytes], "<u4").reshape(
            -1, 1 + header.max_m
        )
        _check_links(lists, name, header.n_elements, header.max_m)
        for level, row in enumerate(lists, start=1):
            if (levels[row[1 : 1 + row[0]]] < level).any():
                raise BundleRefused(
                    name, f"element {element} links to an element that is not on level {level}"
                )
