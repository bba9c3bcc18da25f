"""A generated bundle of a given size, made as anybody's vectors are: files, then `reco bundle import`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from loadtest.bench.errors import BenchError

RECO = Path(sys.executable).with_name("reco")
MODEL = "als"
SEEN = 20


def precomputed_in(folder: Path, bundle: Path) -> Path:
    """An artifacts folder with the same bundle, every user's candidates computed beforehand. Raises BenchError."""
    artifacts = folder / "precomputed"
    shutil.copytree(bundle, artifacts / "bundles" / bundle.name)
    words: list[str | Path] = [
        RECO, "bundle", "precompute", "--artifacts", artifacts, "--bundle", bundle.name,
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603 - our own program
    if done.returncode != 0:
        raise BenchError(done.stderr.decode())
    return artifacts


def make_artifacts(folder: Path, *, users: int, items: int, dim: int) -> Path:
    """Make and publish a bundle with an HNSW index; returns its artifacts folder. Raises BenchError.

    Directions are random; item norms fall off with rank as trained factors' do. Every user has seen up to 20 items,
    popular ones more often.
    """
    chance = np.random.default_rng(1)
    item_vectors = chance.standard_normal((items, dim), np.float32)
    item_vectors *= (1 / np.sqrt(1 + np.arange(items) / 1000)).astype(np.float32)[:, None]
    np.save(folder / "items.npy", item_vectors)
    np.save(folder / "users.npy", chance.standard_normal((users, dim), np.float32))
    np.save(folder / "item_ids.npy", 1 + 3 * np.arange(items))
    np.save(folder / "user_ids.npy", 1 + 2 * np.arange(users))
    events = np.empty((users * SEEN, 2), np.int64)
    events[:, 0] = np.repeat(1 + 2 * np.arange(users), SEEN)
    events[:, 1] = 1 + 3 * (items * chance.random(users * SEEN) ** 3).astype(np.int64)
    with (folder / "history.csv").open("w") as history:
        history.write("user_id,item_id\n")
        history.writelines(f"{user},{item}\n" for user, item in events.tolist())
    artifacts = folder / "artifacts"
    words: list[str | Path] = [
        RECO, "bundle", "import", "--out", artifacts, "--name", MODEL, "--index", "hnsw",
        "--item-vectors", folder / "items.npy", "--item-ids", folder / "item_ids.npy",
        "--user-vectors", folder / "users.npy", "--user-ids", folder / "user_ids.npy",
        "--history", folder / "history.csv",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603 - our own program
    if done.returncode != 0:
        raise BenchError(done.stderr.decode())
    return artifacts
