from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from forgery import manifest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.build.assemble import assemble, history
from service.bundle.hnsw_file import GraphFile
from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.bundle.writer import BundleWriter
from service.errors import BundleRefused
from service.recommender.live import go_live

SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(
    n_users=st.integers(20, 40),
    n_items=st.integers(10, 40),
    kind=st.sampled_from(["int64", "str"]),
    space=st.sampled_from(["ip", "cosine", "l2"]),
    index=st.sampled_from(["none", "exact", "hnsw", "ivf"]),
    seed=st.integers(0, 1000),
)
def test_what_is_written_is_what_is_read(
    n_users: int, n_items: int, kind: str, space: str, index: Any, seed: int
) -> None:
    data = tiny_dataset(n_users, n_items, seed=seed, ids=kind, events_per_user=3)
    models = trained_models(data, seed=seed, space=space)
    with tempfile.TemporaryDirectory() as folder:
        path = assemble(Path(folder), data, models, default_model="als", index=index).path
        bundle = load_bundle(path)
        assert bundle.user_ids.kind == bundle.item_ids.kind == kind
        assert bundle.user_ids.take(np.arange(n_users)) == data.user_ids.take(np.arange(n_users))
        assert bundle.item_ids.take(np.arange(n_items)) == data.item_ids.take(np.arange(n_items))
        indptr, items = history(data)
        np.testing.assert_array_equal(bundle.history_indptr, indptr)
        np.testing.assert_array_equal(bundle.history_items, items)
        assert data.items is not None
        assert bundle.titles is not None
        assert list(bundle.titles) == data.items["title"].to_list()
        genres = bundle.attributes["genres"]
        assert [
            sorted(genres.values[code] for code in genres.codes[genres.indptr[i] : genres.indptr[i + 1]])
            for i in range(n_items)
        ] == [sorted(values) for values in data.items["genres"].to_list()]
        for name, trained in models.items():
            if trained.kind == "factors":
                continue
            for role, array in trained.arrays.items():
                np.testing.assert_array_equal(bundle.models[name].arrays[role], array)
        read, given_arrays = bundle.models["als"].arrays, models["als"].arrays
        by_row = np.argsort(read["item_rows"])
        written = given_arrays["item_vectors"]
        if space == "cosine":
            written = written / np.linalg.norm(written, axis=1, keepdims=True)
        np.testing.assert_allclose(read["item_vectors"][by_row], written, rtol=1e-5)
        np.testing.assert_array_equal(read["user_rows"], given_arrays["user_rows"])
        assert (bundle.models["als"].index is not None) == (index in ("exact", "hnsw"))
        assert ("cell_starts" in read) == (index == "ivf")
        assert go_live(bundle).bundle_id == path.name


def test_a_graph_is_loaded_only_where_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path, index="hnsw"))
    loaded: list[str] = []
    load = GraphFile.load

    def noted(graph: GraphFile) -> Any:
        loaded.append(graph.name)
        return load(graph)

    monkeypatch.setattr(GraphFile, "load", noted)
    go_live(bundle, retriever="exact")
    assert loaded == []
    go_live(bundle)
    assert loaded == [bundle.models["als"].entry.files["index"]]


@pytest.mark.parametrize("index", ["none", "hnsw"])
def test_equal_content_has_an_equal_id(tmp_path: Path, index: Any) -> None:
    first, second = (write_tiny_bundle(tmp_path / name, index=index) for name in ("a", "b"))
    assert first.name == second.name
    for name in manifest_of(first)["files"]:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_writing_the_same_again_keeps_the_bundle_that_is_there(tmp_path: Path) -> None:
    first = write_tiny_bundle(tmp_path)
    before = {path: path.stat().st_ino for path in first.rglob("*")}
    assert write_tiny_bundle(tmp_path) == first
    assert {path: path.stat().st_ino for path in first.rglob("*")} == before
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_writing_the_same_again_mends_a_damaged_bundle(tmp_path: Path) -> None:
    first = write_tiny_bundle(tmp_path)
    (first / "golden.json").write_bytes(b"{}")
    with pytest.raises(BundleRefused):
        load_bundle(first)
    assert write_tiny_bundle(tmp_path) == first
    load_bundle(first)


def test_any_different_content_has_another_id(tmp_path: Path) -> None:
    data, models = tiny_dataset(), trained_models(tiny_dataset())
    names = {write_tiny_bundle(tmp_path).name}
    others = [tiny_dataset(61), tiny_dataset(n_items=41), tiny_dataset(seed=8), tiny_dataset(ids="str")]
    names |= {
        write_tiny_bundle(tmp_path, dataset=other, models=trained_models(other)).name for other in others
    }
    names.add(write_tiny_bundle(tmp_path, default_model="knn").name)
    names.add(write_tiny_bundle(tmp_path, index="none").name)
    names.add(write_tiny_bundle(tmp_path, index="hnsw").name)
    scores = models["popular"].arrays["scores"].copy()
    scores[0] = np.nextafter(scores[0], np.float32(np.inf))
    models["popular"].arrays["scores"][:] = scores
    names.add(write_tiny_bundle(tmp_path, dataset=data, models=models).name)
    names.add(
        assemble(tmp_path, data, models, default_model="als", metrics={"als": {"ndcg@10": 0.1}}).path.name
    )
    assert len(names) == 10


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with BundleWriter(tmp_path) as writer:
            writer.add_array("a", np.zeros(3, np.float32))
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_and_fail()
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_writer_refuses_values_that_could_not_be_read(tmp_path: Path) -> None:
    with BundleWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="not finite"):
            writer.add_array("a", np.array([np.nan], np.float32))
        with pytest.raises(ValueError, match="is not one of"):
            writer.add_array("a", np.zeros(3, np.float64))
        with pytest.raises(BundleRefused, match=MANIFEST):
            writer.finish({"default_model": "x"})
