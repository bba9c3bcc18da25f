"""`reco build --models popular,dssm`, from files to answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import with_torch  # noqa: F401 - skips this file where torch is not installed

from models.dssm import dssm
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.cli import main
from service.domain import Deadline, Plan, Query
from service.recommender.live import go_live
from service.recommender.pipeline import recommend

SETTINGS = """
[dssm]
dim = 16
hidden = 32
text_buckets = 64
negatives = 32
batch = 128
max_epochs = 12
"""


def write_tastes(folder: Path) -> Path:
    """Users read the genre that their table says; the last ten have read nothing."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(120):
        own = np.arange(user % 2, 40, 2)
        taste = 1.0 / (1 + np.arange(len(own)))
        chosen = generator.choice(own, 10, replace=False, p=taste / taste.sum())
        rows += [f"{user},{item},{place}" for place, item in enumerate(chosen.tolist())]
    folder.mkdir()
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,pos", *rows]) + "\n")
    users = [f"{user},{'calm' if user % 2 else 'wild'}" for user in range(130)]
    (folder / "users.csv").write_text("\n".join(["user_id,mood", *users]) + "\n")
    items = [f"{item},Title {item},{'war' if item % 2 else 'comedy'}" for item in range(40)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,genres", *items]) + "\n")
    (folder / "dssm.toml").write_text(SETTINGS)
    return folder


def test_a_build_holds_towers_that_answer_the_known_and_the_newcomer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tastes(tmp_path / "data")
    words = [
        "build",
        "--data",
        data,
        "--config",
        data / "dssm.toml",
        "--models",
        "popular,dssm",
        "--index",
        "exact",
    ]
    words += ["--checkpoints", tmp_path / "kept", "--out", tmp_path / "artifacts"]
    assert main([str(word) for word in words]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["metrics"]["dssm"]["NDCG@10"] > 0.3
    kept = list((tmp_path / "kept").iterdir())
    # To validate: one to find when to stop, one on everything. To serve: one of as many epochs.
    assert len(kept) == 3
    assert all(path.suffix == ".safetensors" for path in kept)

    live = go_live(load_bundle(ArtifactStore(tmp_path / "artifacts").current()))
    for user in range(10):
        slate = recommend(Query(user, 5), Plan("dssm"), live, Deadline.none())
        assert slate.source == "personal"
        assert [item % 2 for item in slate.item_ids].count(user % 2) >= 4, user
        # The same history, told rather than stored, makes the same vector: the tower's.
        row = live.bundle.user_ids.row_of(user)
        history = live.bundle.item_ids.take(live.bundle.history_of(row))
        told = recommend(Query(user, 5, history=tuple(history)), Plan("dssm"), live, Deadline.none())
        assert told.source == "fold_in"
        assert told.item_ids == slate.item_ids


def test_where_torch_is_missing_a_build_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dssm, "_NEEDED", ("a_library_that_nobody_has",))
    words = [
        "build",
        "--data",
        write_tastes(tmp_path / "data"),
        "--models",
        "dssm",
        "--out",
        tmp_path / "out",
    ]
    assert main([str(word) for word in words]) == 2
    assert "make setup-train" in capsys.readouterr().err
