"""`reco build` and `reco tune` from files to a published bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.build.build import chosen_models
from models.data.read import read_dataset
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.cli import main
from service.domain import Deadline, Plan, Query
from service.recommender.live import go_live
from service.recommender.pipeline import recommend


def write_tastes(
    folder: Path, *, header: str = "user_id,item_id,timestamp", n_users: int = 120, seed: int = 0
) -> Path:
    """Users of even numbers read items of even numbers, most of all the first ones; users and items tables."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for user in range(n_users):
        own = np.arange(user % 2, 40, 2)
        taste = 1.0 / (1 + np.arange(len(own)))
        for place, item in enumerate(
            generator.choice(own, 10, replace=False, p=taste / taste.sum()).tolist()
        ):
            day = 1_600_000_000 + 86_400 * int(generator.integers(0, 200))
            extra = {"timestamp": day, "pos": place}.get(header.rpartition(",")[2])
            rows.append(f"{user},{item}" + (f",{extra}" if extra is not None else ""))
    (folder / "interactions.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def add_tables(folder: Path) -> Path:
    users = [f"{user},{'F' if user % 2 else 'M'},{20 + user % 3}" for user in range(130)]
    (folder / "users.csv").write_text("\n".join(["user_id,sex,age", *users]) + "\n")
    items = [f"{item},Title {item},{'drama|war' if item % 2 else 'comedy'}" for item in range(40)]
    (folder / "items.csv").write_text("\n".join(["item_id,title,genres", *items]) + "\n")
    return folder


def reco(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON object of the last line of stdout, and stderr."""
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    lines = printed.out.strip().splitlines()
    assert "Traceback" not in printed.err
    return code, json.loads(lines[-1]) if lines else {}, printed.err


def test_a_folder_becomes_a_published_bundle_that_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = add_tables(write_tastes(tmp_path / "data"))
    code, said, told = reco(capsys, "build", "--data", data, "--out", tmp_path / "artifacts")
    assert code == 0
    assert set(said) >= {"bundle", "seconds", "metrics", "dropped"}
    names = chosen_models(read_dataset(data), None)
    assert {"popular", "als", "knn", "ease"} < set(names)
    assert set(said["metrics"]) == set(names)
    assert said["peak_memory_mb"] > 10
    # Steps are named alike in the table and in the JSON.
    for step in ("read", "split", "tune", "validate", "train", "bundle", "verify", "publish", "total"):
        assert step in said["seconds"]
        assert step in told
    path = ArtifactStore(tmp_path / "artifacts").current()
    assert path.name == said["bundle"]
    live = go_live(load_bundle(path))
    manifest = live.bundle.manifest
    best = max(said["metrics"], key=lambda name: said["metrics"][name]["NDCG@10"])
    assert manifest.default_model == said["default"] == best
    assert manifest.models[best].metrics == said["metrics"][best]
    assert set(live.models) == {*names, "default"}
    for name in ("als", "knn", "ease", "default"):
        for user in range(10):
            slate = recommend(Query(user, 5), Plan(name), live, Deadline.none())
            assert slate.source == "personal"
            assert [item % 2 for item in slate.item_ids].count(user % 2) >= 4, (name, user)
    # A user of the table who has read nothing is served what is popular.
    assert recommend(Query(125, 5), Plan("default"), live, Deadline.none()).n_personal == 5


def test_the_same_seed_and_data_give_the_same_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = add_tables(write_tastes(tmp_path / "data"))
    # The retriever is fixed: which one is faster here is measured, and may differ from run to run.
    words = ["build", "--data", data, "--index", "exact"]
    _, first, _ = reco(capsys, *words, "--out", tmp_path / "a", "--seed", 5)
    _, again, _ = reco(capsys, *words, "--out", tmp_path / "b", "--seed", 5)
    _, other, _ = reco(capsys, *words, "--out", tmp_path / "c", "--seed", 6)
    assert first["bundle"] == again["bundle"] != other["bundle"]


@pytest.mark.parametrize("header", ["user_id,item_id", "user_id,item_id,pos", "user_id,item_id,timestamp"])
def test_neither_times_nor_tables_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str
) -> None:
    file = write_tastes(tmp_path / "data", header=header) / "interactions.csv"
    code, said, _ = reco(capsys, "build", "--data", file, "--out", tmp_path / "artifacts")
    assert code == 0
    assert said["metrics"]["als"]["NDCG@10"] > said["metrics"]["popular"]["NDCG@10"]


@pytest.mark.parametrize("header", ["user_id,item_id", "user_id,item_id,timestamp"])
def test_five_users_and_three_items_are_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str
) -> None:
    rows = ["1,1", "1,2", "2,1", "3,3", "4,2", "5,1", "5,3"]
    timed = [row + (f",{1_600_000_000 + n}" if "timestamp" in header else "") for n, row in enumerate(rows)]
    (tmp_path / "tiny.csv").write_text("\n".join([header, *timed]) + "\n")
    code, said, _ = reco(capsys, "build", "--data", tmp_path / "tiny.csv", "--out", tmp_path / "artifacts")
    assert code == 0
    live = go_live(load_bundle(ArtifactStore(tmp_path / "artifacts").current()))
    for name in live.models:
        assert len(recommend(Query(1, 2), Plan(name), live, Deadline.none()).item_ids) == 1
    assert said["default"] in live.models


def test_a_single_event_a_user_leaves_nothing_to_validate_but_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.csv").write_text("user_id,item_id\n" + "".join(f"{u},{u % 3}\n" for u in range(6)))
    code, said, _ = reco(capsys, "build", "--data", tmp_path / "one.csv", "--out", tmp_path / "artifacts")
    assert code == 0
    assert said["metrics"] == {}
    assert said["default"] == "popular"


def test_text_ids_and_named_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"u{user},film/{item},{item}" for user in range(30) for item in range(user % 3, 12, 2)]
    (tmp_path / "log.csv").write_text("\n".join(["uid,thing,score", *rows]) + "\n")
    code, said, _ = reco(
        capsys, "build", "--data", tmp_path / "log.csv", "--out", tmp_path / "a", "--models", "knn",
        "--column", "user_id=uid", "--column", "item_id=thing",
    )  # fmt: skip
    assert code == 0
    assert set(said["metrics"]) == {"popular", "knn"}
    live = go_live(load_bundle(ArtifactStore(tmp_path / "a").current()))
    assert live.bundle.item_ids.row_of("film/3") >= 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("user_id,item_id\n", "no "),
        ("user_id,item_id\n1,7\n2,7\n", "1 item"),
        ("user,item\n1,7\n", "user_id"),
    ],
)
def test_impossible_data_is_refused_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    (tmp_path / "bad.csv").write_text(text)
    code, _, told = reco(capsys, "build", "--data", tmp_path / "bad.csv", "--out", tmp_path / "artifacts")
    assert code == 2
    last = told.strip().splitlines()[-1]
    assert last.startswith("reco: ")
    assert complaint in last
    assert "bad.csv" in last
    assert not (tmp_path / "artifacts" / "current.json").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--models", "als,svd"], "no such model 'svd'"),
        (["--models", ""], "no such model"),
        (["--tune", "hard"], "--tune"),
        (["--column", "user_id"], "--column user_id: must be OURS=THEIRS"),
        (["--column", "uid=user_id"], "no such name"),
        (["--reader", "excel"], "excel"),
        (["--config", "absent.toml"], "absent.toml"),
    ],
)
def test_wrong_usage_is_refused_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    data = write_tastes(tmp_path / "data")
    code, _, told = reco(capsys, "build", "--data", data, "--out", tmp_path / "artifacts", *flags)
    assert code == 2
    assert complaint in told.strip().splitlines()[-1]


def test_no_publish_leaves_the_pointer_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_tastes(tmp_path / "data"), tmp_path / "artifacts"
    flags = ["--data", data, "--out", out, "--models", "popular", "--tune", "off"]
    code, said, _ = reco(capsys, "build", *flags, "--no-publish")
    assert code == 0
    assert ArtifactStore(out).list() == [said["bundle"]]
    assert not (out / "current.json").exists()


def test_settings_that_tune_wrote_are_built_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file = write_tastes(tmp_path / "data"), tmp_path / "settings.toml"
    code, tuned, told = reco(
        capsys, "tune", "--data", data, "--model", "ease", "--minutes", "0.05", "--out", file
    )
    assert code == 0
    assert tuned["trials"] > 1
    assert "regularization" in told
    flags = ["--data", data, "--out", tmp_path / "artifacts", "--models", "ease", "--config", file]
    code, said, _ = reco(capsys, "build", *flags)
    assert code == 0
    assert said["configs"]["ease"] == tuned["config"]
    # What the search scored is what the serving line then answers.
    assert said["metrics"]["ease"]["NDCG@10"] == pytest.approx(tuned["metrics"]["NDCG@10"], abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "complaint"), [(["--minutes", "0"], "--minutes"), (["--model", "svd"], "--model")]
)
def test_tune_refuses_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    data = write_tastes(tmp_path / "data")
    code, _, told = reco(capsys, "tune", "--data", data, "--model", "als", *flags)
    assert code == 2
    assert complaint in told


def test_a_popular_window_is_chosen_where_taste_drifts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each month has favourites of its own: all-time counts are of the past."""
    generator = np.random.default_rng(0)
    rows = []
    for day in range(360):
        month = day // 30
        for user in generator.choice(400, 12, replace=False).tolist():
            item = month * 10 + int(generator.integers(0, 10))
            rows.append(f"{user},{item},{1_600_000_000 + day * 86_400}")
    (tmp_path / "drift.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    flags = ["--data", tmp_path / "drift.csv", "--models", "popular"]
    _, chosen, _ = reco(capsys, "build", *flags, "--out", tmp_path / "a")
    _, plain, _ = reco(capsys, "build", *flags, "--out", tmp_path / "b", "--tune", "off")
    settings = chosen["configs"]["popular"]
    assert settings["days"] is not None or settings["half_life"] is not None
    assert chosen["metrics"]["popular"]["NDCG@10"] > plain["metrics"]["popular"]["NDCG@10"]


def test_avatars_are_built_in_and_shown_what_they_get(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = add_tables(write_tastes(tmp_path / "data"))
    settings = tmp_path / "settings.toml"
    settings.write_text('[avatars]\ncomic = ["Title 0", 4, 6, 10, 12]\nmartial = [1, 3, "Title 5", 9, 11]\n')
    flags = ["--data", data, "--out", tmp_path / "artifacts", "--config", settings]
    code, said, told = reco(capsys, "build", *flags, "--models", "als")
    assert code == 0
    for name, genre in (("comic", "comedy"), ("martial", "war")):
        assert len(said["avatars"][name]["items"]) == 10
        assert said["avatars"][name]["genres"][genre] >= 0.9
        assert said["avatars"][name]["titles"][0] in told
    settings.write_text('[avatars]\ncomic = ["Title 77"]\n')
    code, _, told = reco(capsys, "build", *flags)
    assert code == 2
    assert "avatar 'comic': 'Title 77'" in told
