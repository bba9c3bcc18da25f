"""docs/bundle.md is enough to read a bundle: this reader knows only what that page says, and no numpy."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from service.bundle.manifest import bundle_id_of
from service.bundle.reader import Bundle, load_bundle

HEADER = re.compile(r"\{'descr': '(..\d)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n")
LETTERS = {"<i4": "i", "<i8": "q", "<f4": "f", "|u1": "B"}


@pytest.fixture(scope="module", params=["int64", "str"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    data = tiny_dataset(ids=request.param)
    root = tmp_path_factory.mktemp("format")
    return load_bundle(write_tiny_bundle(root, dataset=data, models=trained_models(data), index="hnsw"))


def manifest(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle.path / "manifest.json").read_text())
    return found


def read_npy(path: Path) -> tuple[str, list[int], tuple[Any, ...]]:
    """Type, shape and values, flat."""
    raw = path.read_bytes()
    assert raw[:8] == bytes.fromhex("93 4E 55 4D 50 59 01 00")
    (length,) = struct.unpack_from("<H", raw, 8)
    found = HEADER.fullmatch(raw[10 : 10 + length].decode("ascii"))
    assert found is not None
    shape = [int(size) for size in found[2].split(",") if size.strip()]
    values = raw[10 + length :]
    letter = LETTERS[found[1]]
    return found[1], shape, struct.unpack(f"<{len(values) // struct.calcsize(letter)}{letter}", values)


def values_of(bundle: Bundle, file: str) -> tuple[Any, ...]:
    return read_npy(bundle.path / file)[2]


def test_every_file_is_as_the_manifest_says(bundle: Bundle) -> None:
    files = manifest(bundle)["files"]
    present = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert present == {*files, "manifest.json"}
    for name, entry in files.items():
        raw = (bundle.path / name).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (entry["bytes"], entry["sha256"])
        if name.endswith(".npy"):
            assert read_npy(bundle.path / name)[:2] == (entry["dtype"], entry["shape"])


def test_the_seal_and_the_id(bundle: Bundle) -> None:
    raw = (bundle.path / "manifest.json").read_bytes()
    seal = manifest(bundle)["seal"]
    assert hashlib.sha256(raw.replace(seal.encode(), b"0" * 64)).hexdigest() == seal
    content = {k: v for k, v in manifest(bundle).items() if k not in {"bundle_id", "created_at", "seal"}}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert (
        hashlib.sha256(text.encode()).hexdigest()[:16] == bundle.path.name == bundle_id_of(manifest(bundle))
    )


def test_ids_titles_and_attributes(bundle: Bundle) -> None:
    catalogue = manifest(bundle)["catalogue"]

    def text(role: str) -> list[str]:
        blob = bytes(values_of(bundle, catalogue[f"{role}_blob"]))
        offsets = values_of(bundle, catalogue[f"{role}_offsets"])
        return [blob[begin:end].decode() for begin, end in pairwise(offsets)]

    kind = manifest(bundle)["item_id_kind"]
    ids = list(values_of(bundle, catalogue["item_ids_values"])) if kind == "int64" else text("item_ids")
    assert [bundle.item_ids.row_of(one) for one in ids] == list(range(len(bundle.item_ids)))
    assert text("titles") == list(bundle.titles or ())
    attributes = json.loads((bundle.path / catalogue["attributes"]).read_text())
    assert list(attributes) == list(bundle.attributes)
    for i, (name, values) in enumerate(attributes.items()):
        assert tuple(values) == bundle.attributes[name].values
        assert (
            list(values_of(bundle, catalogue[f"attribute_{i}_codes"]))
            == bundle.attributes[name].codes.tolist()
        )


def test_the_best_item_by_hand_is_the_golden_one(bundle: Bundle) -> None:
    files = manifest(bundle)["models"]["als"]["files"]
    dim = manifest(bundle)["models"]["als"]["dim"]
    items, users = (values_of(bundle, files[role]) for role in ("item_vectors", "user_vectors"))
    item_rows, user_rows = (values_of(bundle, files[role]) for role in ("item_rows", "user_rows"))
    golden = json.loads((bundle.path / manifest(bundle)["golden"]).read_text())["als"]
    assert len(golden["user_rows"]) > 3
    for user, best, scores in zip(golden["user_rows"], golden["item_rows"], golden["scores"], strict=True):
        at = user_rows.index(user) * dim
        vector = users[at : at + dim]
        by_row = {
            row: sum(a * b for a, b in zip(vector, items[i * dim : i * dim + dim], strict=True))
            for i, row in enumerate(item_rows)
        }
        assert sorted(by_row.values(), reverse=True)[: len(scores)] == pytest.approx(scores, abs=1e-5)
        assert [by_row[row] for row in best] == pytest.approx(scores, abs=1e-5)


def test_the_index_holds_the_item_vectors_and_links_that_lead_somewhere(bundle: Bundle) -> None:
    model = manifest(bundle)["models"]["als"]
    dim, m = model["dim"], model["retrieval"]["hnsw"]["m"]
    items = values_of(bundle, model["files"]["item_vectors"])
    raw = (bundle.path / model["files"]["index"]).read_bytes()
    zero, room, n, record, label_at, vector_at = struct.unpack_from("<6Q", raw, 0)
    level, entry, upper_m, lower_m, same_m, _, ef_construction = struct.unpack_from("<iI3QdQ", raw, 48)
    assert (zero, record, label_at, vector_at) == (0, 4 + 8 * m + 4 * dim + 8, 4 + 8 * m + 4 * dim, 4 + 8 * m)
    assert (upper_m, lower_m, same_m) == (m, 2 * m, m)
    assert ef_construction == model["retrieval"]["hnsw"]["ef_construction"]
    assert n == len(items) // dim <= room
    labels = set()
    for element in range(n):
        at = 96 + element * record
        (count,) = struct.unpack_from("<I", raw, at)
        assert all(link < n for link in struct.unpack_from(f"<{count}I", raw, at + 4))
        (label,) = struct.unpack_from("<Q", raw, at + label_at)
        assert struct.unpack_from(f"<{dim}f", raw, at + vector_at) == items[label * dim : label * dim + dim]
        labels.add(label)
    assert labels == set(range(n))
    at, highest = 96 + n * record, 0
    for element in range(n):
        (length,) = struct.unpack_from("<I", raw, at)
        assert length % (4 + 4 * m) == 0
        highest = max(highest, length // (4 + 4 * m))
        if element == entry:
            assert length // (4 + 4 * m) == level
        at += 4 + length
    assert (at, highest) == (len(raw), level)
