"""The fault corpus of bundles: each is refused with the file and the reason, by reading and by `reco bundle verify`.

Faults 1-6 and 18 break the bytes, and the hashes tell. The rest come from someone who signs: see forgery.py.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from forgery import array_of, forge, manifest_of, npy, npy_with_header

from service import cli
from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import BundleRefused
from service.recommender.live import go_live

ITEM_VECTORS, USER_VECTORS, INDEX = "als/item_vectors.npy", "als/user_vectors.npy", "als/index.hnsw"
STARTS, CENTROIDS = "als/cell_starts.npy", "als/cell_centroids.npy"
USER_IDS, ITEM_IDS = "catalogue/user_ids_values.npy", "catalogue/item_ids_values.npy"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every kind of model, with an index; never changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("sound"), index="hnsw")


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    """A published copy to break."""
    path = tmp_path / "bundles" / sound.name
    shutil.copytree(sound, path)
    ArtifactStore(tmp_path).publish(path.name)
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[Path, str, str], None]:
    """Check that a bundle is refused by the reader and by the command line, naming the file and the reason."""

    def check(path: Path, file: str, reason: str) -> None:
        with pytest.raises(BundleRefused) as caught:
            go_live(load_bundle(path))
        assert caught.value.file == file
        assert reason in caught.value.reason
        root = path.parent.parent
        assert cli.main(["bundle", "verify", path.name, "--artifacts", str(root)]) == cli.REFUSED
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert file in err
        assert reason in err

    return check


def test_the_bundle_that_is_broken_below_is_sound(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go_live(load_bundle(bundle)).bundle_id == bundle.name
    assert cli.main(["bundle", "verify", "--artifacts", str(bundle.parent.parent)]) == cli.DONE
    assert '"verified":true' in capsys.readouterr().out


def test_a_forgery_that_changes_nothing_is_accepted(bundle: Path) -> None:
    forged = forge(bundle, {ITEM_VECTORS: array_of(bundle, ITEM_VECTORS)})
    assert forged.name == bundle.name
    assert go_live(load_bundle(forged)).bundle_id == bundle.name


def flip(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :]


BYTE_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "1 empty": lambda raw: b"",
    "2 truncated": lambda raw: raw[:-1],
    "2 truncated to half": lambda raw: raw[: len(raw) // 2],
    "3 appended": lambda raw: raw + b"\0",
    "4 header flip": lambda raw: flip(raw, 6),
    "5 body flip": lambda raw: flip(raw, len(raw) - 3),
    "6 zeroed page": lambda raw: bytes(min(len(raw), 4096)) + raw[4096:],
}


@pytest.mark.parametrize("fault", BYTE_FAULTS)
def test_a_fault_of_bytes_is_refused_in_every_file(fault: str, bundle: Path) -> None:
    for name in [*manifest_of(bundle)["files"], MANIFEST]:
        raw = (bundle / name).read_bytes()
        (bundle / name).write_bytes(BYTE_FAULTS[fault](raw))
        with pytest.raises(BundleRefused) as caught:
            load_bundle(bundle)
        assert caught.value.file == name
        assert caught.value.reason
        (bundle / name).write_bytes(raw)
    load_bundle(bundle)


@pytest.mark.parametrize("fault", BYTE_FAULTS)
def test_a_fault_of_bytes_ends_the_command_with_3(
    fault: str, bundle: Path, refused: Callable[..., None]
) -> None:
    (bundle / INDEX).write_bytes(BYTE_FAULTS[fault]((bundle / INDEX).read_bytes()))
    refused(bundle, INDEX, "sha256" if "flip" in fault or "zeroed" in fault else "the manifest says")


class TestFault7WrongDim:
    def test_of_one_array(self, bundle: Path, refused: Callable[..., None]) -> None:
        narrow = array_of(bundle, USER_VECTORS)[:, :7]
        refused(
            forge(bundle, {USER_VECTORS: np.ascontiguousarray(narrow)}),
            USER_VECTORS,
            "shape [55, 8], not [55, 7]",
        )

    def test_of_all_arrays_beside_the_old_index(self, bundle: Path, refused: Callable[..., None]) -> None:
        items, users = array_of(bundle, ITEM_VECTORS)[:, :4], array_of(bundle, USER_VECTORS)[:, :4]
        order = np.argsort(-np.linalg.norm(items, axis=1), kind="stable")
        items = np.ascontiguousarray(items[order])
        contents = {
            ITEM_VECTORS: items,
            USER_VECTORS: np.ascontiguousarray(users),
            "als/item_rows.npy": array_of(bundle, "als/item_rows.npy")[order],
            "als/gram.npy": items.T @ items,
        }
        forged = forge(bundle, contents, lambda document: document["models"]["als"].update(dim=4))
        refused(forged, INDEX, "index header: label_offset")

    def test_of_the_manifest(self, bundle: Path, refused: Callable[..., None]) -> None:
        forged = forge(bundle, edit=lambda document: document["models"]["als"].update(dim=16))
        refused(forged, ITEM_VECTORS, "must have shape [40, 16]")


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        ("<f8", "dtype '<f8' is not one of"),
        (">f4", "dtype '>f4' is not one of"),
        ("<f2", "dtype '<f2' is not one of"),
        ("<i4", "must be <f4, not <i4"),
    ],
)
def test_fault_8_wrong_dtype_or_endianness(
    dtype: str, reason: str, bundle: Path, refused: Callable[..., None]
) -> None:
    refused(forge(bundle, {ITEM_VECTORS: array_of(bundle, ITEM_VECTORS).astype(dtype)}), ITEM_VECTORS, reason)


def test_fault_8_big_endian_bytes_that_claim_to_be_little(bundle: Path, refused: Callable[..., None]) -> None:
    swapped = npy(array_of(bundle, ITEM_VECTORS).astype(">f4"))
    refused(forge(bundle, {ITEM_VECTORS: swapped}), ITEM_VECTORS, "not an npy array")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "file",
    [
        ITEM_VECTORS,
        USER_VECTORS,
        "als/gram.npy",
        "popular/scores.npy",
        "knn/weights.npy",
        "ease/dense.npy",
        "lists/scores.npy",
    ],
)
def test_fault_9_nan_or_inf(value: float, file: str, bundle: Path, refused: Callable[..., None]) -> None:
    array = array_of(bundle, file)
    array.flat[3] = value
    refused(forge(bundle, {file: array}), file, "value number 3 is not finite")


@pytest.mark.parametrize("file", [ITEM_VECTORS, USER_VECTORS])
def test_fault_10_zero_norms(file: str, bundle: Path, refused: Callable[..., None]) -> None:
    array = array_of(bundle, file)
    array[-1] = 0
    refused(forge(bundle, {file: array}), file, f"the vector of row {len(array) - 1} has no usable norm")


def test_fault_10_a_norm_too_long_to_multiply(bundle: Path, refused: Callable[..., None]) -> None:
    array = array_of(bundle, ITEM_VECTORS)
    array[0] = 1e18
    refused(forge(bundle, {ITEM_VECTORS: array}), ITEM_VECTORS, "the vector of row 0 has no usable norm")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (USER_IDS, "unique and ascending"),
        (ITEM_IDS, "unique and ascending"),
        ("als/item_rows.npy", "an item has two vectors"),
        ("als/user_rows.npy", "rows must be unique and ascending"),
        ("popular/items.npy", "lists an item twice"),
        ("catalogue/history_items.npy", "lists an item twice"),
        ("lists/items.npy", "lists an item twice"),
    ],
)
def test_fault_11_duplicate_ids(file: str, reason: str, bundle: Path, refused: Callable[..., None]) -> None:
    array = array_of(bundle, file)
    array[1] = array[0]
    refused(forge(bundle, {file: array}), file, reason)


def test_fault_11_ids_out_of_order(bundle: Path, refused: Callable[..., None]) -> None:
    refused(
        forge(bundle, {USER_IDS: array_of(bundle, USER_IDS)[::-1].copy()}), USER_IDS, "unique and ascending"
    )


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (USER_IDS, "history_indptr must have shape [60]"),
        (ITEM_IDS, "an entry is outside 0..38"),
        ("als/user_rows.npy", "user_vectors must have shape [54, 8]"),
        ("als/item_rows.npy", "item_vectors must have shape [39, 8]"),
        ("popular/user_segment.npy", "user_segment must have shape [60]"),
        ("catalogue/titles_offsets.npy", "titles_offsets must have shape [41]"),
        ("knn/indptr.npy", "indptr must have shape [41]"),
        ("ease/dense.npy", "dense must have shape [40, 40]"),
    ],
)
def test_fault_12_rows_are_not_as_many_as_ids(file: str, reason: str, bundle: Path, sound: Path) -> None:
    with pytest.raises(BundleRefused, match=r".") as caught:
        load_bundle(forge(bundle, {file: array_of(bundle, file)[:-1]}))
    assert caught.value.file in manifest_of(sound)["files"]
    assert reason in caught.value.reason


@pytest.mark.parametrize("row", [-1, 40, 2**31 - 1])
@pytest.mark.parametrize(
    "file", ["als/item_rows.npy", "popular/items.npy", "catalogue/history_items.npy", "knn/indices.npy"]
)
def test_fault_12_a_row_outside_the_ids(
    file: str, row: int, bundle: Path, refused: Callable[..., None]
) -> None:
    array = array_of(bundle, file)
    array[-1] = row
    refused(forge(bundle, {file: array}), file, "outside 0..39")


@pytest.mark.parametrize("first_lists", [-1, 10**6, True, "1", None])
def test_fault_12_first_lists_that_are_not_there(
    first_lists: object, bundle: Path, refused: Callable[..., None]
) -> None:
    forged = forge(
        bundle,
        edit=lambda document: document["models"]["popular"]["parameters"].update(first_lists=first_lists),
    )
    refused(forged, MANIFEST, "parameters.first_lists")


@pytest.mark.parametrize("file", ["catalogue/history_indptr.npy", "popular/indptr.npy", "knn/indptr.npy"])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_fault_12_offsets_that_fall_or_end_elsewhere(
    file: str, place: int, bundle: Path, refused: Callable[..., None]
) -> None:
    array = array_of(bundle, file)
    array[place] = 10**6 if place else 1
    refused(forge(bundle, {file: array}), file, "must not fall")


class TestFault13IndexAndEmbeddingsOfDifferentVersions:
    def other(self, tmp_path: Path) -> Path:
        data = tiny_dataset(seed=8)
        return write_tiny_bundle(
            tmp_path / "other", dataset=data, models=trained_models(data, seed=8), index="hnsw"
        )

    def test_the_index_of_another_version(
        self, bundle: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        foreign = (self.other(tmp_path) / INDEX).read_bytes()
        refused(forge(bundle, {INDEX: foreign}), INDEX, "the index holds other vectors than the bundle")

    def test_the_vectors_of_another_version(
        self, bundle: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        other = self.other(tmp_path)
        names = ("als/item_vectors.npy", "als/item_rows.npy", "als/gram.npy")
        forged = forge(bundle, {name: array_of(other, name) for name in names})
        refused(forged, INDEX, "the index holds other vectors than the bundle")

    def test_the_users_of_another_version(
        self, bundle: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        other = self.other(tmp_path)
        names = ("als/user_vectors.npy", "als/user_rows.npy")
        forged = forge(bundle, {name: array_of(other, name) for name in names})
        refused(forged, "golden.json", "'als' answers golden query 0 with other scores")

    def test_the_gram_matrix_of_another_version(
        self, bundle: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        foreign = array_of(self.other(tmp_path), "als/gram.npy")
        refused(
            forge(bundle, {"als/gram.npy": foreign}),
            "als/gram.npy",
            f"is not the Gram matrix of {ITEM_VECTORS}",
        )


class TestFault14ManifestMissingOrExtraFile:
    def test_no_manifest(self, bundle: Path) -> None:
        (bundle / MANIFEST).unlink()
        with pytest.raises(BundleRefused, match=r"manifest\.json: missing"):
            load_bundle(bundle)

    def test_a_published_bundle_without_manifest_ends_the_command_with_3(
        self, bundle: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (bundle / MANIFEST).unlink()
        assert cli.main(["bundle", "verify", "--artifacts", str(bundle.parent.parent)]) == cli.REFUSED
        assert bundle.name in capsys.readouterr().err

    def test_a_missing_file(self, bundle: Path, refused: Callable[..., None]) -> None:
        (bundle / INDEX).unlink()
        refused(bundle, INDEX, "missing")

    @pytest.mark.parametrize("name", ["extra.npy", "als/extra.npy", "als/.hidden", "als/new/deep.json"])
    def test_an_extra_file(self, name: str, bundle: Path, refused: Callable[..., None]) -> None:
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_bytes(b"")
        refused(bundle, name, "the manifest does not name this file")

    def test_a_folder_called_after_another_bundle(self, bundle: Path, refused: Callable[..., None]) -> None:
        refused(
            bundle.rename(bundle.parent / "0123456789abcdef"),
            MANIFEST,
            "the folder is called 0123456789abcdef",
        )

    @pytest.mark.parametrize("role", ["item_vectors", "user_rows"])
    def test_a_role_without_file(self, role: str, bundle: Path, refused: Callable[..., None]) -> None:
        forged = forge(bundle, edit=lambda document: document["models"]["als"]["files"].pop(role))
        refused(forged, MANIFEST, "models.als: files")

    def test_a_bundle_with_nothing_to_fall_back_to(self, bundle: Path, refused: Callable[..., None]) -> None:
        refused(forge(bundle, edit=lambda document: document["models"].pop("popular")), MANIFEST, "fall back")

    def test_no_golden_queries_for_a_model(self, bundle: Path, refused: Callable[..., None]) -> None:
        refused(forge(bundle, {"golden.json": b"{}"}), "golden.json", "no golden queries for 'als'")

    @pytest.mark.parametrize(
        ("golden", "reason"),
        [
            (b"[]", "golden queries"),
            (
                b'{"als":{"user_rows":[0],"item_rows":[[1]],"scores":[[]],"hnsw_item_rows":[]}}',
                "without items",
            ),
            (
                b'{"als":{"user_rows":[0],"item_rows":[[]],"scores":[[]],"hnsw_item_rows":[]}}',
                "without items",
            ),
            (b'{"als":{"user_rows":[0],"item_rows":[],"scores":[],"hnsw_item_rows":[]}}', "as many answers"),
            (
                b'{"als":{"user_rows":[0,1],"item_rows":[[1],[1]],"scores":[[1],[1]],"hnsw_item_rows":[[1]]}}',
                "only some",
            ),
            (
                b'{"als":{"user_rows":[60],"item_rows":[[1]],"scores":[[1]],"hnsw_item_rows":[]}}',
                "out of range",
            ),
            (
                b'{"als":{"user_rows":[0],"item_rows":[[40]],"scores":[[1]],"hnsw_item_rows":[]}}',
                "out of range",
            ),
            (
                b'{"als":{"user_rows":[59],"item_rows":[[1]],"scores":[[1]],"hnsw_item_rows":[]}}',
                "has no vector",
            ),
        ],
    )
    def test_golden_queries_that_ask_nothing(
        self, golden: bytes, reason: str, bundle: Path, refused: Callable[..., None]
    ) -> None:
        refused(forge(bundle, {"golden.json": golden}), "golden.json", reason)

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"regularization": 0.1},
            {"regularization": -1, "alpha": 1},
            {"regularization": 1, "alpha": "x"},
            3,
        ],
    )
    def test_fold_in_settings_that_would_fail_on_a_request(
        self, settings: object, bundle: Path, refused: Callable[..., None]
    ) -> None:
        forged = forge(
            bundle, edit=lambda document: document["models"]["als"]["parameters"].update(fold_in=settings)
        )
        refused(forged, MANIFEST, "parameters.fold_in")

    def test_a_solver_whose_matrix_is_singular(self, bundle: Path, refused: Callable[..., None]) -> None:
        items = array_of(bundle, ITEM_VECTORS)
        items[:, 7] = items[:, 6]
        order = np.argsort(-np.linalg.norm(items, axis=1), kind="stable")
        items = np.ascontiguousarray(items[order])

        def unregularized(document: dict[str, Any]) -> None:
            model = document["models"]["als"]
            model["parameters"]["fold_in"]["regularization"] = 0
            model["retrieval"] |= {"hnsw": None, "retriever": "exact"}
            del model["files"]["index"]

        contents = {
            ITEM_VECTORS: items,
            "als/item_rows.npy": array_of(bundle, "als/item_rows.npy")[order],
            "als/gram.npy": items.T @ items,
            INDEX: None,
        }
        refused(forge(bundle, contents, unregularized), "als/gram.npy", "no user can be solved for")

    def test_a_manifest_nested_too_deep_to_hash(self, bundle: Path, refused: Callable[..., None]) -> None:
        raw = (bundle / MANIFEST).read_bytes()
        deep = b'"training": {"a": ' + b"[" * 300 + b"]" * 300 + b"}"
        (bundle / MANIFEST).write_bytes(raw.replace(b'"training": {}', deep, 1))
        refused(bundle, MANIFEST, "")

    def test_every_byte_of_the_manifest_is_sealed(self, bundle: Path, refused: Callable[..., None]) -> None:
        raw = (bundle / MANIFEST).read_bytes()
        (bundle / MANIFEST).write_bytes(raw.replace(b'"created_at": "2', b'"created_at": "3', 1))
        refused(bundle, MANIFEST, "the seal does not match the file")


def with_cells(root: Path, n_items: int = 40) -> Path:
    """A published bundle whose vectors stand in cells."""
    data = tiny_dataset(60, n_items, events_per_user=20)
    bundle = write_tiny_bundle(root, dataset=data, models=trained_models(data), index="ivf")
    ArtifactStore(root).publish(bundle.name)
    return bundle


class TestCells:
    @pytest.mark.parametrize(
        ("first", "between", "last", "reason"),
        [
            (0, 41, 40, "without falling"),
            (1, 2, 40, "from 0 to 40"),
            (0, 2, 39, "from 0 to 40"),
            (0, -1, 40, "without falling"),
        ],
    )
    def test_of_other_vectors(
        self, first: int, between: int, last: int, reason: str, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        bundle = with_cells(tmp_path)
        starts = np.full(len(array_of(bundle, STARTS)), between, np.int32)
        starts[0], starts[-1] = first, last
        refused(forge(bundle, {STARTS: starts}), STARTS, reason)

    def test_fewer_than_the_settings_say(self, tmp_path: Path, refused: Callable[..., None]) -> None:
        refused(forge(with_cells(tmp_path), {STARTS: np.array([0, 40], np.int32)}), STARTS, "shape")

    def test_around_other_centroids(self, tmp_path: Path, refused: Callable[..., None]) -> None:
        bundle = with_cells(tmp_path, 4000)
        centroids = array_of(bundle, CENTROIDS)
        refused(forge(bundle, {CENTROIDS: centroids[::-1].copy()}), "golden.json", "golden query")

    def test_around_centroids_beyond_measure(self, tmp_path: Path, refused: Callable[..., None]) -> None:
        bundle = with_cells(tmp_path)
        refused(forge(bundle, {CENTROIDS: array_of(bundle, CENTROIDS) * 1e20}), CENTROIDS, "reaches 1e+15")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [({"ivf": None}, "go together"), ({"n_cells": 11}, "shape"), ({"n_probe": 1000}, "n_probe")],
    )
    def test_with_other_settings(
        self, changes: dict[str, Any], reason: str, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        def changed(document: dict[str, Any]) -> None:
            retrieval = document["models"]["als"]["retrieval"]
            if "ivf" in changes:
                retrieval |= changes
            else:
                retrieval["ivf"] |= changes

        bundle = with_cells(tmp_path)
        file = STARTS if reason == "shape" else MANIFEST
        refused(forge(bundle, edit=changed), file, reason)

    def test_without_their_centroids(self, tmp_path: Path, refused: Callable[..., None]) -> None:
        def without(document: dict[str, Any]) -> None:
            del document["models"]["als"]["files"]["cell_centroids"]

        refused(forge(with_cells(tmp_path), {CENTROIDS: None}, without), MANIFEST, "go together")

    def test_that_answered_only_some_of_the_golden_queries(
        self, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        bundle = with_cells(tmp_path)
        golden = json.loads((bundle / "golden.json").read_bytes())
        golden["als"]["ivf_item_rows"].pop()
        forged = forge(bundle, {"golden.json": json.dumps(golden).encode()})
        refused(forged, "golden.json", "the cells answered only some of them")


class TestFault15LinksAndPathsOutside:
    def test_a_symlinked_file(self, bundle: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
        shutil.move(bundle / ITEM_VECTORS, tmp_path / "elsewhere.npy")
        (bundle / ITEM_VECTORS).symlink_to(tmp_path / "elsewhere.npy")
        refused(bundle, ITEM_VECTORS, "a symbolic link")

    def test_a_symlinked_folder(self, bundle: Path, tmp_path: Path) -> None:
        shutil.move(bundle / "als", tmp_path / "elsewhere")
        (bundle / "als").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleRefused, match="als"):
            load_bundle(bundle)

    def test_a_symlinked_manifest(self, bundle: Path, tmp_path: Path, refused: Callable[..., None]) -> None:
        shutil.move(bundle / MANIFEST, tmp_path / "elsewhere.json")
        (bundle / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
        refused(bundle, MANIFEST, "a symbolic link")

    def test_a_pipe_is_never_opened(self, bundle: Path, refused: Callable[..., None]) -> None:
        (bundle / ITEM_VECTORS).unlink()
        os.mkfifo(bundle / ITEM_VECTORS)
        refused(bundle, ITEM_VECTORS, "not a regular file")

    @pytest.mark.parametrize(
        "name",
        [
            "../outside.npy",
            "als/../../outside.npy",
            "/etc/outside.npy",
            "als//x.npy",
            "als\\x.npy",
            "./x.npy",
            "a\0.npy",
        ],
    )
    def test_a_path_that_leaves_the_bundle(
        self, name: str, bundle: Path, refused: Callable[..., None]
    ) -> None:
        def point_outside(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
            document["files"][name] = document["files"].pop(ITEM_VECTORS)
            document["models"]["als"]["files"]["item_vectors"] = name

        refused(forge(bundle, edit=point_outside), MANIFEST, "String should match pattern")


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        gzip.compress(bytes(500)),
        b'{"a": 1}',
        b"PK\x03\x04" + bytes(300),
        b"",
        b"\x93NUMPY",
    ],
    ids=["png", "gzip", "json", "zip", "nothing", "only the magic"],
)
@pytest.mark.parametrize("file", [ITEM_VECTORS, USER_IDS, "catalogue/titles_blob.npy"])
def test_fault_16_valid_hash_wrong_content_in_an_array(
    content: bytes, file: str, bundle: Path, refused: Callable[..., None]
) -> None:
    refused(forge(bundle, {file: content}), file, "not an npy array")


def test_fault_16_valid_hash_wrong_content_in_an_index(bundle: Path, refused: Callable[..., None]) -> None:
    refused(forge(bundle, {INDEX: npy(np.zeros((40, 8), np.float32))}), INDEX, "index header")


@pytest.mark.parametrize("file", ["golden.json", "catalogue/attributes.json"])
@pytest.mark.parametrize(
    "content",
    [b"\x93NUMPY\x01\x00", b"[1, 2", b"\xff\xfe", b"[" * 5000],
    ids=["npy", "half", "utf-16", "deep"],
)
def test_fault_16_valid_hash_wrong_content_in_json(
    file: str, content: bytes, bundle: Path, refused: Callable[..., None]
) -> None:
    refused(forge(bundle, {file: content}), file, "not JSON")


@pytest.mark.parametrize("content", [b"[]", b'{"genres": "drama"}', b'{"genres": [1]}', b"null"])
def test_fault_16_json_of_another_shape(content: bytes, bundle: Path, refused: Callable[..., None]) -> None:
    refused(forge(bundle, {"catalogue/attributes.json": content}), "catalogue/attributes.json", "must map")


def test_fault_17_a_pickle_inside_npy_is_not_run(
    bundle: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    marker = tmp_path / "ran"
    program = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    content = npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (40, 8), }", program)
    refused(forge(bundle, {ITEM_VECTORS: content}), ITEM_VECTORS, "not an npy array")
    assert not marker.exists()


def test_fault_17_a_pickle_that_claims_to_be_objects(bundle: Path, refused: Callable[..., None]) -> None:
    content = npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (40, 8), }", b"N.")
    refused(
        forge(bundle, {ITEM_VECTORS: content}, claim={"dtype": "|O"}),
        ITEM_VECTORS,
        "dtype '|O' is not one of",
    )


class TestFault18HalfCopied:
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_the_last_files_are_missing_and_one_is_cut(self, share: float, bundle: Path) -> None:
        names = sorted(manifest_of(bundle)["files"])
        cut = int(len(names) * share)
        for name in names[cut + 1 :]:
            (bundle / name).unlink()
        raw = (bundle / names[cut]).read_bytes()
        (bundle / names[cut]).write_bytes(raw[: len(raw) // 2])
        with pytest.raises(BundleRefused) as caught:
            load_bundle(bundle)
        assert caught.value.file in names[cut:]

    def test_a_copy_whose_manifest_has_not_come_is_not_listed(self, bundle: Path) -> None:
        store = ArtifactStore(bundle.parent.parent)
        (bundle / MANIFEST).unlink()
        assert store.list() == []


class TestFault19HugeDeclaredShape:
    @pytest.mark.parametrize("rows", [2**40, 10**15 - 1])
    def test_in_the_header_and_the_manifest(self, rows: int, bundle: Path) -> None:
        content = npy_with_header(
            f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({rows},), }}", bytes(160)
        )
        with pytest.raises(BundleRefused) as caught:
            load_bundle(forge(bundle, {"als/item_rows.npy": content}, claim={"shape": [rows]}))
        assert caught.value.file in ("als/item_rows.npy", MANIFEST)
        assert "do not hold shape" in caught.value.reason or "less than or equal" in caught.value.reason

    def test_in_the_header_alone(self, bundle: Path, refused: Callable[..., None]) -> None:
        content = npy_with_header(
            "{'descr': '<i4', 'fortran_order': False, 'shape': (1099511627776,), }", bytes(160)
        )
        refused(forge(bundle, {"als/item_rows.npy": content}), "als/item_rows.npy", "the manifest says [40]")

    def test_whose_product_wraps_around(self, bundle: Path, refused: Callable[..., None]) -> None:
        content = npy_with_header(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 16777216), }"
        )
        forged = forge(bundle, {ITEM_VECTORS: content}, claim={"shape": [2**40, 2**24]})
        refused(forged, ITEM_VECTORS, "do not hold shape")

    @pytest.mark.parametrize("field", [0, 1, 2, 3])
    def test_in_the_index(self, field: int, bundle: Path, refused: Callable[..., None]) -> None:
        raw = bytearray((bundle / INDEX).read_bytes())
        raw[8 * field : 8 * field + 8] = (2**60).to_bytes(8, "little")
        refused(forge(bundle, {INDEX: bytes(raw)}), INDEX, "index header")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': True, 'shape': (40, 8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-40, -8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (40L, 8L), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 8), 'more': 1, }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (40, 8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4_0, 8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 8), }\n#",
        "(" * 3000,
        "__import__('os').abort()",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
        " " * 20_000 + "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 8), }",
        "",
    ],
)
def test_a_crafted_npy_header_is_refused(header: str, bundle: Path, refused: Callable[..., None]) -> None:
    body = array_of(bundle, ITEM_VECTORS).tobytes()
    refused(forge(bundle, {ITEM_VECTORS: npy_with_header(header, body)}), ITEM_VECTORS, "")


@pytest.mark.parametrize("version", [b"\x02\x00", b"\x03\x00", b"\x00\x00", b"\xff\xff"])
def test_another_version_of_npy_is_refused(
    version: bytes, bundle: Path, refused: Callable[..., None]
) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 8), }"
    content = npy_with_header(header, array_of(bundle, ITEM_VECTORS).tobytes(), version=version)
    refused(forge(bundle, {ITEM_VECTORS: content}), ITEM_VECTORS, "not an npy array of version 1.0")
