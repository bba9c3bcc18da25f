from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.bundle.arrays import ALLOWED_DTYPES, map_array, stream_rows, write_array
from service.bundle.manifest import FileEntry
from service.errors import BundleRefused

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)


def arrays() -> st.SearchStrategy[npt.NDArray[Any]]:
    return st.sampled_from(sorted(ALLOWED_DTYPES)).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            SHAPES,
            elements=st.floats(width=32, allow_nan=False, allow_infinity=False) if dtype == "<f4" else None,
        )
    )


def entry_of(path: Path, array: npt.NDArray[Any]) -> FileEntry:
    return FileEntry(
        bytes=path.stat().st_size, sha256="0" * 64, dtype=array.dtype.str, shape=list(array.shape)
    )


@given(arrays())
def test_an_array_of_any_shape_and_kind_reads_back(array: npt.NDArray[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        write_array(path, array)
        mapped = map_array(path, "a.npy", entry_of(path, array))
        assert mapped.dtype == array.dtype
        np.testing.assert_array_equal(mapped, array)
        if array.size:
            with pytest.raises(ValueError, match="read-only"):
                mapped.flat[0] = 1
        np.testing.assert_array_equal(np.load(path, allow_pickle=False), array)


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 50), st.integers(1, 6)), elements=st.just(1.5)))
def test_streamed_rows_are_the_rows(array: npt.NDArray[np.float32]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        write_array(path, array)
        blocks = list(stream_rows(path, map_array(path, "a.npy", entry_of(path, array))))
        assert [first for first, _ in blocks] == sorted(first for first, _ in blocks)
        assert sum(len(rows) for _, rows in blocks) == len(array)
        for first, rows in blocks:
            np.testing.assert_array_equal(rows, array[first : first + len(rows)])


@pytest.mark.parametrize("dtype", ["<f8", "<i2", "|b1", "|O", "<U3", "<c8", ">f4"])
def test_other_kinds_of_array_are_not_written(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        write_array(tmp_path / "a.npy", np.zeros(3, dtype))


@pytest.mark.parametrize("place", [0, 5, (1 << 20) + 7])
def test_a_value_that_is_not_finite_is_found_wherever_it_stands(place: int, tmp_path: Path) -> None:
    array = np.zeros((1 << 20) + 8, np.float32)
    array[place] = np.nan
    path = tmp_path / "a.npy"
    write_array(path, array)
    with pytest.raises(BundleRefused, match=f"value number {place} is not finite"):
        map_array(path, "a.npy", entry_of(path, array))


@pytest.mark.skipif(
    sys.byteorder != "little", reason="the format is little-endian, as this machine should be"
)
def test_the_bytes_are_what_the_format_page_says(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_array(path, np.array([[1, 2], [3, 4]], np.int32))
    raw = path.read_bytes()
    assert raw[:8] == b"\x93NUMPY\x01\x00"
    length = int.from_bytes(raw[8:10], "little")
    assert (10 + length) % 64 == 0
    assert raw[10 : 10 + length].rstrip() == b"{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2), }"
    assert raw[10 + length :] == b"".join(n.to_bytes(4, "little") for n in (1, 2, 3, 4))
