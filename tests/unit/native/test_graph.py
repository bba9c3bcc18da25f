"""A saved graph index is walked whole: each kind of damage is told, and what is sound passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hnswlib
import numpy as np
import numpy.typing as npt
import pytest

from service.native import graph_fault

N, DIM, M = 400, 6, 4
RECORD = 4 + 8 * M + 4 * DIM + 8
UPPER = 96 + N * RECORD
File = npt.NDArray[np.uint8]
VECTORS = np.random.default_rng(4).normal(size=(N, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> File:
    index = hnswlib.Index(space="ip", dim=DIM)
    index.init_index(max_elements=N, M=M, ef_construction=50, random_seed=1)
    index.add_items(VECTORS, np.random.default_rng(5).permutation(N), num_threads=1)
    path: Path = tmp_path_factory.mktemp("graph") / "index"
    index.save_index(str(path))
    file: File = np.fromfile(path, np.uint8)
    return file


def labelled(file: File) -> npt.NDArray[np.float32]:
    """The vectors in the order of their labels."""
    records = file[96:UPPER].reshape(N, RECORD)
    labels = records[:, -8:].copy().view(np.uint64).ravel()
    vectors = np.empty_like(VECTORS)
    vectors[labels] = records[:, 4 + 8 * M : -8].copy().view(np.float32)
    return vectors


def fault_of(file: File, vectors: npt.NDArray[np.float32]) -> str | None:
    level, entry = file[48:52].view(np.int32)[0], file[52:56].view(np.uint32)[0]
    return graph_fault(file, vectors, M, int(level), int(entry))


def number(file: File, at: int, value: int | None = None) -> int:
    """Read the unsigned number of four bytes at a place, and write another."""
    found = int(file[at : at + 4].view(np.uint32)[0])
    if value is not None:
        file[at : at + 4].view(np.uint32)[0] = value
    return found


def upper_lists(file: File) -> list[tuple[int, int, int]]:
    """Element, place and number of its upper lists, where it has any."""
    at, found = UPPER, []
    for element in range(N):
        size = number(file, at)
        if size:
            found.append((element, at + 4, size // (4 + 4 * M)))
        at += 4 + size
    return found


def test_a_sound_index_passes(saved: File) -> None:
    assert fault_of(saved, labelled(saved)) is None


def too_many_links(file: File) -> None:
    number(file, 96 + 7 * RECORD, 2 * M + 1)


def deleted(file: File) -> None:
    file[96 + 7 * RECORD + 2] |= 1


def link_outside(file: File) -> None:
    number(file, 96 + 7 * RECORD + 4 * number(file, 96 + 7 * RECORD), N)


def label_outside(file: File) -> None:
    number(file, 96 + 8 * RECORD - 8, N)


def label_far_outside(file: File) -> None:
    number(file, 96 + 8 * RECORD - 4, 1)


def element_twice(file: File) -> None:
    """Label and vector of the next one."""
    begin = 96 + 7 * RECORD + 4 + 8 * M
    file[begin : 96 + 8 * RECORD] = file[begin + RECORD : 96 + 9 * RECORD]


def another_vector(file: File) -> None:
    file[96 + 7 * RECORD + 4 + 8 * M] ^= 1


def length_of_no_lists(file: File) -> None:
    number(file, UPPER, 4)


def length_beyond_the_end(file: File) -> None:
    number(file, upper_lists(file)[-1][1] - 4, (4 + 4 * M) * 10_000)


def upper_link_outside(file: File) -> None:
    number(file, upper_lists(file)[3][1], 1)
    number(file, upper_lists(file)[3][1] + 4, N)


def too_many_upper_links(file: File) -> None:
    number(file, upper_lists(file)[3][1], M + 1)


def link_to_a_lower_level(file: File) -> None:
    low = next(element for element in range(N) if element not in {one[0] for one in upper_lists(file)})
    number(file, upper_lists(file)[3][1], 1)
    number(file, upper_lists(file)[3][1] + 4, low)


def entry_below(file: File) -> None:
    number(file, 52, next(element for element, _, levels in upper_lists(file) if levels == 1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (too_many_links, "more links than allowed"),
        (deleted, "or is marked deleted"),
        (link_outside, "a link points outside"),
        (label_outside, "a label is out of range"),
        (label_far_outside, "a label is out of range"),
        (element_twice, "a label occurs twice"),
        (another_vector, "other vectors than the bundle"),
        (length_of_no_lists, "element 0 have a wrong length"),
        (length_beyond_the_end, "have a wrong length"),
        (upper_link_outside, "a link points outside"),
        (too_many_upper_links, "more links than allowed"),
        (link_to_a_lower_level, "not on its level"),
        (entry_below, "not on the top level"),
    ],
)
def test_each_kind_of_damage_is_told(saved: File, damage: Callable[[File], None], reason: str) -> None:
    file = saved.copy()
    damage(file)
    told = fault_of(file, labelled(saved))
    assert told is not None
    assert reason in told
    assert "%" not in told


@pytest.mark.parametrize("cut", [1, 4, 5, RECORD])
def test_a_shortened_or_longer_file_is_told(saved: File, cut: int) -> None:
    vectors = labelled(saved)
    assert fault_of(saved[:-cut].copy(), vectors) is not None
    longer = np.concatenate((saved, np.zeros(cut, np.uint8)))
    assert fault_of(longer, vectors) == f"{cut} bytes too many"
    assert (
        fault_of(saved[: UPPER + 4 * N - 1].copy(), vectors)
        == f"{UPPER + 4 * N - 1} bytes do not hold {N} elements"
    )
    assert fault_of(saved[:96].copy(), vectors) == f"96 bytes do not hold {N} elements"


@pytest.mark.parametrize(
    ("m", "level", "entry"), [(0, 1, 0), (5000, 1, 0), (M, -1, 0), (M, 64, 0), (M, 1, N), (M, 1, -1)]
)
def test_numbers_that_no_index_has_are_refused(saved: File, m: int, level: int, entry: int) -> None:
    with pytest.raises(ValueError, match="graph_fault"):
        graph_fault(saved, VECTORS, m, level, entry)
