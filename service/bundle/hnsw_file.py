"""A saved hnswlib index, read by our own eyes before native code sees it.

hnswlib trusts its file: a crafted one writes past the heap or answers wrongly without a word (hnswlib#673). So the
whole structure is checked here, every link of it, and its vectors against the bundle's own, bit for bit.

Layout (hnswlib 0.8, HierarchicalNSW::saveIndex): a 96-byte header; one fixed-size record an element (link count and
links of level 0, the vector, the label); then for each element the byte length of its upper link lists and the lists.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import hnswlib
import numpy as np
import numpy.typing as npt

from service.errors import BundleRefused
from service.native import graph_fault

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


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph index that was checked whole, and is not loaded.

    Loaded, it is memory of the process, about twice its vectors', which only a retriever that walks it needs.
    """

    path: Path
    name: str
    space: Literal["l2", "ip"]
    n_elements: int
    dim: int
    ef_search: int

    def load(self) -> hnswlib.Index:
        """The index, set to search by one thread. Raises BundleRefused where hnswlib can't read it."""
        index = hnswlib.Index(space=self.space, dim=self.dim)
        try:
            index.load_index(str(self.path), max_elements=self.n_elements)
        except RuntimeError as error:
            raise BundleRefused(self.name, f"hnswlib: {error}") from error
        index.set_ef(self.ef_search)
        index.set_num_threads(1)
        return index


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
    fault = graph_fault(
        np.asarray(np.memmap(path, np.uint8, mode="r")), vectors, m, header.max_level, header.entry_point
    )
    if fault is not None:
        raise BundleRefused(name, fault)
