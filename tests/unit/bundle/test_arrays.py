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

from service.bundle.arrays import ALLOWED_DTYPES, let_go, map_array, stream_rows, write_array
from service.bundle.files import sha256_of
from service.bundle.manifest import FileEntry
from service.bundle.values import Values
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


def mapped_from(path: Path, array: npt.NDArray[Any], *, gaps: bool = False) -> npt.NDArray[Any]:
    """Hash, note, map: as a bundle is read."""
    entry = entry_of(path, array)
    noted = Values(entry) if array.dtype == np.float32 else None
    sha256_of(path, noted)
    return map_array(path, "a.npy", entry, noted, gaps=gaps)


@given(arrays())
def test_an_array_of_any_shape_and_kind_reads_back(array: npt.NDArray[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        write_array(path, array)
        mapped = mapped_from(path, array)
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
        blocks = list(stream_rows(path, mapped_from(path, array)))
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
    path = tmp_path / "a.npy"
    for value, gaps in ((np.nan, False), (np.inf, False), (-np.inf, True)):
        array[place] = value
        array[(1 << 20) + 3] = np.nan
        write_array(path, array)
        told = min(place, (1 << 20) + 3) if not gaps else place
        with pytest.raises(BundleRefused, match=f"value number {told} is not finite"):
            mapped_from(path, array, gaps=gaps)
    array[place] = 0.0
    write_array(path, array)
    assert np.isnan(mapped_from(path, array, gaps=True)[(1 << 20) + 3])


def test_floats_that_nobody_looked_at_are_not_mapped(tmp_path: Path) -> None:
    array = np.zeros(3, np.float32)
    write_array(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="noted"):
        map_array(tmp_path / "a.npy", "a.npy", entry_of(tmp_path / "a.npy", array), None)


@pytest.mark.parametrize("padding", range(9))
def test_values_stand_at_multiples_of_their_size_whatever_the_header_s_length(
    padding: int, tmp_path: Path
) -> None:
    path, array = tmp_path / "a.npy", np.arange(5, dtype=np.int64)
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }}{' ' * padding}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes())
    mapped = mapped_from(path, array)
    assert mapped.flags.aligned
    assert mapped.tolist() == array.tolist()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="tells of memory on Linux only")
def test_pages_let_go_are_no_memory_of_the_process_until_they_are_read(tmp_path: Path) -> None:
    def resident() -> int:
        rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(row.split()[1]) << 10 for row in rows if row.startswith("Rss:"))

    array = np.arange(4 << 20, dtype=np.int32)
    write_array(tmp_path / "a.npy", array)
    mapped = mapped_from(tmp_path / "a.npy", array)
    assert int(mapped.max()) == len(array) - 1
    before = resident()
    let_go(mapped[7:])
    assert resident() < before - array.nbytes // 2
    np.testing.assert_array_equal(mapped, array)
    let_go(array)  # is no map
    np.testing.assert_array_equal(mapped, array)


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
