"""What is noted of a file's values while it is hashed, against numpy over the whole array."""

from __future__ import annotations

import os
import threading
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from factories import write_tiny_bundle

from service.bundle import files, values
from service.bundle.files import read_manifest, sha256_of, verify_hashes
from service.bundle.manifest import FileEntry
from service.bundle.reader import load_bundle
from service.bundle.values import Values, values_of
from service.errors import BundleRefused


def entry_of(raw: bytes, shape: list[int]) -> FileEntry:
    return FileEntry(bytes=len(raw), sha256=sha256(raw).hexdigest(), dtype="<f4", shape=shape)


@pytest.mark.parametrize(("n", "dim"), [(1, 1), (3, 7), (1000, 64), (70, 4096)])
@pytest.mark.parametrize("header", [64, 77])
def test_norms_and_products_are_those_of_the_whole_array(
    n: int, dim: int, header: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "BLOCK_BYTES", 4096)  # many blocks
    vectors = np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)
    raw = bytes(header) + vectors.tobytes()
    (tmp_path / "a.npy").write_bytes(raw)
    noted = Values(entry_of(raw, [n, dim]), norms=True, gram=True)
    assert sha256_of(tmp_path / "a.npy", noted) == sha256(raw).hexdigest()
    assert noted.norms is not None
    assert noted.gram is not None
    exact = vectors.astype(np.float64)
    np.testing.assert_allclose(noted.norms, np.linalg.norm(exact, axis=1), rtol=1e-5)
    gram = exact.T @ exact
    np.testing.assert_allclose(noted.gram, gram, atol=1e-5 * np.abs(gram).max())
    assert (noted.not_finite, noted.infinite) == (None, None)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("place", [0, 13, 1999])
def test_the_first_strange_value_is_told(
    norms: bool, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "BLOCK_BYTES", 160)
    array = np.full((200, 10), 1e30, np.float32)  # whose squares are infinite, and which is finite
    for value, told in ((1.0, (None, None)), (np.nan, (place, None)), (np.inf, (place, place))):
        array.flat[place] = value
        raw = array.tobytes()
        (tmp_path / "a.npy").write_bytes(raw)
        noted = Values(entry_of(raw, [200, 10]), norms=norms, gram=norms)
        sha256_of(tmp_path / "a.npy", noted)
        assert (noted.not_finite, noted.infinite) == told


@pytest.mark.parametrize("change", [-4, -1, 1, 4, 4000])
def test_a_file_of_another_length_than_was_promised_is_hashed_all_the_same(
    change: int, tmp_path: Path
) -> None:
    promised = np.ones(1000, np.float32).tobytes()
    raw = promised[:change] if change < 0 else promised + b"x" * change
    (tmp_path / "a.npy").write_bytes(raw)
    noted = Values(entry_of(promised, [100, 10]), norms=True)
    assert sha256_of(tmp_path / "a.npy", noted) == sha256(raw).hexdigest()


@pytest.mark.parametrize("shape", [[2**40, 2**20], [251], None])
def test_entries_that_cannot_be_right_are_not_followed(shape: list[int] | None) -> None:
    with pytest.raises(ValueError, match=r"short|float32"):
        Values(FileEntry(bytes=1000, sha256="0" * 64, dtype="<f4", shape=shape))


@pytest.mark.parametrize("priority", [0, 1])
def test_the_first_damaged_file_is_named_however_many_threads_hash(
    priority: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpriority", lambda *_: priority)
    bundle = write_tiny_bundle(tmp_path)
    manifest = read_manifest(bundle)
    verify_hashes(bundle, manifest, values_of(manifest))
    assert load_bundle(bundle).bundle_id == bundle.name
    names = list(manifest.files)
    for name in (names[-1], names[len(names) // 2], names[1]):
        raw = bytearray((bundle / name).read_bytes())
        raw[-1] ^= 1
        (bundle / name).write_bytes(raw)
        with pytest.raises(BundleRefused, match="sha256") as caught:
            verify_hashes(bundle, manifest, values_of(manifest))
        assert caught.value.file == name


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="threads have a class of their own on Linux only")
@pytest.mark.parametrize("step_back", ["nice", "idle"])
def test_a_thread_that_stepped_back_hashes_alone(step_back: str) -> None:
    found: list[int] = []

    def load() -> None:
        if step_back == "nice":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        else:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        found.append(files._threads())

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert found == [1]


def test_what_each_array_is_asked_depends_on_its_role(tmp_path: Path) -> None:
    manifest = read_manifest(write_tiny_bundle(tmp_path))
    noted = values_of(manifest)
    assert set(noted) == {name for name, entry in manifest.files.items() if entry.dtype == "<f4"}
    als = manifest.models["als"].files
    assert noted[als["item_vectors"]].gram is not None
    assert noted[als["user_vectors"]].gram is None
    assert noted[als["gram"]].norms is None


def test_a_file_that_says_to_begin_with_more_than_a_header_is_noted_by_nobody() -> None:
    """Else all that stands before the values would be read at once, however much it is."""
    raw = bytes(64 + 20_000) + np.ones(3, np.float32).tobytes()
    with pytest.raises(ValueError, match="too long"):
        Values(entry_of(raw, [3]))
