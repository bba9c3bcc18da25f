"""Bundles of random vectors, searched exactly: as dear to answer from as they are large."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtest.chaos.service import Unkept, reco

MODEL = "vectors"


def make_vectors(
    folder: Path,
    artifacts: Path,
    *,
    users: int,
    items: int,
    dim: int = 64,
    seed: int = 1,
    publish: bool = True,
) -> str:
    """Import a bundle of random directions into an artifacts folder; returns its id. Raises Unkept.

    User ids are 0..users - 1. `seed`: another one gives a bundle that answers otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    files = {}
    for name, count in (("item", items), ("user", users)):
        files[name] = folder / f"{name}-{seed}.npy"
        np.save(files[name], chance.standard_normal((count, dim), np.float32))
    words: list[str | Path] = [
        "bundle", "import", "--out", artifacts, "--name", MODEL, "--index", "none", "--seed", str(seed),
        "--item-vectors", files["item"], "--user-vectors", files["user"],
        "--publish" if publish else "--no-publish",
    ]  # fmt: skip
    before = set(_bundles(artifacts))
    done = reco(*words)
    if done.returncode != 0:
        raise Unkept(done.stderr.decode())
    for file in files.values():
        file.unlink()
    made = sorted(set(_bundles(artifacts)) - before)
    if not made:
        raise Unkept(f"no bundle was made: {done.stderr.decode()}")
    return made[0]


def _bundles(artifacts: Path) -> list[str]:
    folder = artifacts / "bundles"
    return (
        [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    )
