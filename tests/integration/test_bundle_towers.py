"""Towers that someone who can sign has forged, and what a native crash costs: a refusal, never the service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files as files
import pytest
from factories import tiny_dataset
from forgery import array_of, forge
from tower_bundles import of_other_items, tower_model, write_tower_bundle

from service.bundle import onnx_probe
from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.errors import BundleRefused
from service.recommender.live import go_live

TOWER, TOKENS, FEATURES = "tower/tower.onnx", "tower/tower_tokens.npy", "tower/user_features.npy"
VECTOR = files.value("vector", "float32", (1, 6))
HISTORY = files.value("history", "int64", (1, "n"))
TOLD = files.value("features", "float32", (1, 2))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tower_bundle(tmp_path, publish=False)


@pytest.fixture
def refused() -> Callable[[Path, str, str], None]:
    def check(path: Path, file: str, reason: str) -> None:
        with pytest.raises(BundleRefused, match=reason) as caught:
            go_live(load_bundle(path))
        assert caught.value.file == file

    return check


def graph(*nodes: bytes, weights: tuple[bytes, ...] = ()) -> bytes:
    """A tower of both inputs whose nodes compute `vector`."""
    return files.model(files.graph(nodes, weights, [HISTORY, TOLD], [VECTOR]))


def shape(*sizes: int) -> bytes:
    return files.tensor("shape", np.array(sizes, np.int64))


FORGED = {
    "nothing": (b"", "no graph"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), "not an ONNX model"),
    "an operator nobody knows": (
        graph(files.node("NoSuchThing", ["history"], ["vector"])),
        "the runtime can't open it",
    ),
    "a type that does not fit": (
        graph(files.node("MatMul", ["history", "features"], ["vector"])),
        "the runtime can't open it",
    ),
    "another length": (
        graph(files.node("ConstantOfShape", ["shape"], ["vector"]), weights=(shape(1, 7),)),
        "the runtime can't open it|answers",
    ),
    "not finite": (
        graph(
            files.node("ConstantOfShape", ["shape"], ["zeros"]),
            files.node("Div", ["zeros", "zeros"], ["vector"]),
            weights=(shape(1, 6),),
        ),
        "not finite",
    ),
    "more memory than there is": (
        graph(
            files.node("ConstantOfShape", ["shape"], ["huge"]),
            files.node("ReduceMean", ["huge"], ["vector"], axes=[0], keepdims=1),
            weights=(shape(1 << 34, 6),),
        ),
        "can't",
    ),
    "too few items": (
        files.tower(np.ones((20, 6), np.float32), np.ones((2, 6), np.float32)),
        "can't answer a history of 1: .*out of data bounds",
    ),
    "data outside the file": (
        graph(weights=(files.tensor("t", np.ones(3, np.float32), files.field(14, 1)),)),
        "outside the file",
    ),
    "operators of its own": (
        graph(files.node("Anything", [], [], files.field(7, "my.ops"))),
        "my.ops",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_tower_is_refused(name: str, bundle: Path, refused: Callable[..., None]) -> None:
    raw, reason = FORGED[name]
    refused(forge(bundle, {TOWER: raw}), TOWER, reason)


def test_a_tower_trained_for_other_items_fails_the_golden_queries(
    tmp_path: Path, refused: Callable[..., None]
) -> None:
    other = of_other_items(tower_model(tiny_dataset()))
    refused(write_tower_bundle(tmp_path, other), TOWER, "another vector than tower/user_vectors.npy has")


def test_the_parts_of_a_tower_go_together(bundle: Path, refused: Callable[..., None]) -> None:
    def without_tower(document: dict[str, Any]) -> None:
        del document["models"]["tower"]["files"]["tower"]

    refused(forge(bundle, {TOWER: None}, without_tower), MANIFEST, "no file 'tower'")


def test_a_tower_that_reads_features_needs_them(bundle: Path, refused: Callable[..., None]) -> None:
    def without_features(document: dict[str, Any]) -> None:
        del document["models"]["tower"]["files"]["user_features"]

    refused(forge(bundle, {FEATURES: None}, without_features), TOWER, "user_features go together")


def test_only_vectors_have_towers(bundle: Path, refused: Callable[..., None]) -> None:
    def moved(document: dict[str, Any]) -> None:
        for role in ("tower", "tower_tokens", "user_features"):
            document["models"]["knn"]["files"][role] = document["models"]["tower"]["files"].pop(role)

    refused(forge(bundle, edit=moved), MANIFEST, "models.knn: files")


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {},
        {"history_length": 0},
        {"history_length": 10**6},
        {"history_length": 5, "without_history": "chance"},
        {"history_length": 5, "more": 1},
        {"history_length": 5, "features": ["age"]},
    ],
)
def test_settings_that_would_fail_on_a_request(
    settings: object, bundle: Path, refused: Callable[..., None]
) -> None:
    forged = forge(
        bundle, edit=lambda document: document["models"]["tower"]["parameters"].update(tower=settings)
    )
    refused(forged, MANIFEST, r"parameters\.tower")


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [(np.zeros(40, np.int32), "no item"), (np.full(40, -1, np.int32), "below 0")],
)
def test_tokens_that_name_nothing(
    tokens: Any, reason: str, bundle: Path, refused: Callable[..., None]
) -> None:
    refused(forge(bundle, {TOKENS: tokens}), TOKENS, reason)


def test_a_token_beyond_the_towers_items(bundle: Path, refused: Callable[..., None]) -> None:
    tokens = array_of(bundle, TOKENS)
    tokens[3] = 10**9
    refused(forge(bundle, {TOKENS: tokens}), TOWER, "out of data bounds")


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("kill -SEGV $$", r"crashed the runtime when it was tried \(SIGSEGV\)"),
        ("kill -XCPU $$", r"used up its time when it was tried \(SIGXCPU\)"),
        ("exit 3", r"could not be tried \(exit code 3\)"),
    ],
)
def test_how_the_process_that_tries_it_ends_is_told(
    ends: str, reason: str, bundle: Path, tmp_path: Path, refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An interpreter that dies stands in for a runtime that does: no file is known that crashes this one."""
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\n{ends}\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    refused(bundle, TOWER, reason)


def test_the_process_that_tries_it_is_told_no_secrets(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spying = tmp_path / "python"
    spying.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\necho null\n")
    spying.chmod(0o755)
    monkeypatch.setenv("RECO_TOKENS", "shop:kq7Zr1vWn3xT9bLs5hYd")
    monkeypatch.setattr(sys, "executable", str(spying))
    load_bundle(bundle)
    assert "kq7Zr1vWn3xT9bLs5hYd" not in (tmp_path / "env").read_text()


def test_a_process_that_does_not_end_is_ended(
    bundle: Path, tmp_path: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(onnx_probe, "WALL_SECONDS", 0.2)
    refused(bundle, TOWER, "did not answer within")
