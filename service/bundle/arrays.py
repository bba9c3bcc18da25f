"""Arrays on disk: `.npy`, read by our own eyes first, then mapped read-only. No pickle on any path."""

from __future__ import annotations

import math
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from service.bundle.manifest import FileEntry
from service.bundle.values import MAX_HEADER_BYTES, Values
from service.errors import BundleRefused

ALLOWED_DTYPES = frozenset({"<i8", "<i4", "<f4", "|u1"})
_CHUNK_BYTES = 1 << 22
_MAGIC = b"\x93NUMPY\x01\x00"
# A header is Python source by definition, and numpy evaluates it. Bundles hold the one form that writers emit.
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,15}, ?)*(?:[0-9]{1,15})?)\), ?\} *\n"
)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write one array. Raises ValueError for a dtype the format does not hold."""
    array = np.ascontiguousarray(array)
    if array.dtype.str not in ALLOWED_DTYPES:
        raise ValueError(f"{path.name}: dtype {array.dtype} is not one of {sorted(ALLOWED_DTYPES)}")
    with path.open("wb") as file:
        npy_format.write_array(file, array, allow_pickle=False)


def map_array(
    path: Path, name: str, entry: FileEntry, values: Values | None, *, gaps: bool = False
) -> npt.NDArray[Any]:
    """Map an array read-only after its header agrees with the manifest and the file's size with both.

    `values`: what was noted of a float array while it was hashed. Not one of them may be NaN or infinite; with `gaps`
    NaN may stand for what is not known. Raises BundleRefused.
    """
    if entry.dtype not in ALLOWED_DTYPES or entry.shape is None:
        raise BundleRefused(
            name, f"dtype {entry.dtype!r} is not one of {sorted(ALLOWED_DTYPES)}, or no shape"
        )
    descr, fortran, shape, start = _read_header(path, name)
    if descr != entry.dtype:
        raise BundleRefused(name, f"dtype is {descr}, the manifest says {entry.dtype}")
    if list(shape) != entry.shape or fortran:
        raise BundleRefused(name, f"shape is {list(shape)}, the manifest says {entry.shape}")
    dtype = np.dtype(descr)
    expected = start + math.prod(shape) * dtype.itemsize
    if expected != entry.bytes:
        raise BundleRefused(name, f"{entry.bytes} bytes do not hold shape {list(shape)} of {dtype.str}")
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    if dtype.kind == "f":
        if values is None:
            raise ValueError(f"{name}: nothing was noted of its values")
        strange = values.infinite if gaps else values.not_finite
        if strange is not None:
            raise BundleRefused(name, f"value number {strange} is not finite")
    mapped = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape)
    # The plain class slices faster; the map lives on as its base. It is copied only after a header of odd length, as
    # compiled code wants each value at a multiple of its size.
    aligned: npt.NDArray[Any] = np.require(np.asarray(mapped), requirements="A")
    return aligned


def _read_header(path: Path, name: str) -> tuple[str, bool, tuple[int, ...], int]:
    """Type, Fortran order, shape, and where the values begin. Raises BundleRefused for any other kind of header."""
    with path.open("rb") as file:
        begins = file.read(len(_MAGIC) + 2)
        if begins[:-2] != _MAGIC:
            raise BundleRefused(name, "not an npy array of version 1.0")
        length = int.from_bytes(begins[-2:], "little")
        if length > MAX_HEADER_BYTES:
            raise BundleRefused(name, f"the npy header is larger than {MAX_HEADER_BYTES} bytes")
        found = _HEADER.fullmatch(file.read(length))
    if found is None:
        raise BundleRefused(name, "not an npy array: its header is not that of a plain array")
    descr, fortran, sizes = (part.decode() for part in found.groups())
    shape = tuple(int(size) for size in sizes.replace(" ", "").split(",") if size)
    return descr, fortran == "True", shape, len(begins) + length


def let_go(array: npt.NDArray[Any]) -> None:
    """Take a mapped array's pages out of this process: they stay in the page cache, and come back where they are read.

    An array that is no map stays as it is.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def stream_rows(path: Path, array: npt.NDArray[Any]) -> Any:
    """Yield (first row, rows) of a mapped 2-d array read through a small buffer instead of the map."""
    if array.size == 0:
        return
    row_bytes = array.dtype.itemsize * array.shape[1]
    step = max(1, _CHUNK_BYTES // row_bytes)
    with path.open("rb") as file:
        file.seek(path.stat().st_size - array.nbytes)
        for first in range(0, array.shape[0], step):
            count = min(step, array.shape[0] - first)
            rows = np.frombuffer(file.read(count * row_bytes), array.dtype).reshape(count, array.shape[1])
            yield first, rows
