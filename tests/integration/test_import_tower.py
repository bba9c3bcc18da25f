"""`reco bundle import --tower`: one's own ONNX tower beside one's own vectors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_files as files
import orjson
import pytest

from service import cli
from service.bundle.reader import load_bundle
from service.domain import Deadline, Plan, Query, Slate
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend

N_ITEMS, DIM, LATEST = 20, 4, 2
ITEMS = np.random.default_rng(1).normal(size=(N_ITEMS, DIM)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=(3, DIM)).astype(np.float32)
READ = {"ann": [3, 4, 9], "bob": [9, 8]}
TOLD = {"ann": [1, 0, 0], "bob": [0, 1, 0], "cleo": [0, 0, 1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "items.npy", ITEMS)
    (tmp_path / "item_ids.txt").write_text("".join(f"i{row}\n" for row in range(N_ITEMS)))
    rows = [f"{user},i{item},{at}" for user, items in READ.items() for at, item in enumerate(items)]
    (tmp_path / "history.csv").write_text("\n".join(["user_id,item_id,pos", *rows, ""]))
    np.save(tmp_path / "features.npy", np.array(list(TOLD.values()), np.float32))
    (tmp_path / "feature_ids.txt").write_text("".join(f"{user}\n" for user in TOLD))
    (tmp_path / "tower.onnx").write_bytes(files.tower(ITEMS, WEIGHTS))
    return tmp_path


def flags(folder: Path, *more: object) -> list[str]:
    paths = {
        "item-vectors": "items.npy", "item-ids": "item_ids.txt", "history": "history.csv", "tower": "tower.onnx",
        "user-features": "features.npy", "user-feature-ids": "feature_ids.txt",
    }  # fmt: skip
    given = [part for name, file in paths.items() for part in (f"--{name}", str(folder / file))]
    out = ["--out", str(folder / "artifacts"), "--tower-history", str(LATEST)]
    return ["bundle", "import", *out, *given, *map(str, more)]


def imported(
    folder: Path, capsys: pytest.CaptureFixture[str], *more: object
) -> tuple[dict[str, Any], LiveBundle]:
    assert cli.main(flags(folder, *more)) == 0, capsys.readouterr().err
    summary: dict[str, Any] = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    return summary, go_live(load_bundle(Path(summary["path"])))


@pytest.fixture
def complaint(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*more: object) -> str:
        assert cli.main(flags(folder, *more)) == cli.BAD_INPUT
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert not list((folder / "artifacts").glob("bundles/*"))
        return err

    return run


def ask(live: LiveBundle, user: str | None, *history: str) -> Slate:
    query = Query(user, 5, history=history or None, exclude_seen=False)
    return recommend(query, Plan("imported"), live, Deadline.none())


def best(vector: npt.NDArray[Any]) -> list[str]:
    return [f"i{row}" for row in np.argsort(-(ITEMS @ vector))[:5]]


def test_it_answers_known_users_new_histories_and_features(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, live = imported(folder, capsys)
    assert summary["fold_in"] == "the tower"
    assert summary["users_without_vector"] == 1
    known = ask(live, "ann")
    assert (known.source, known.item_ids) == ("personal", best(ITEMS[[4, 9]].mean(axis=0) + WEIGHTS[0]))
    newer = ask(live, "ann", "i1", "i2")
    assert (newer.source, newer.item_ids) == ("fold_in", best(ITEMS[[1, 2]].mean(axis=0) + WEIGHTS[0]))
    told = ask(live, "cleo")
    assert (told.source, told.item_ids) == ("features", best(WEIGHTS[2]))
    assert ask(live, "dan").source == "popular"


def test_vectors_of_users_that_it_reproduces_may_be_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "users.npy", np.array([ITEMS[[9, 8]].mean(axis=0) + WEIGHTS[1]], np.float32))
    (folder / "user_ids.txt").write_text("bob\n")
    _, live = imported(
        folder, capsys, "--user-vectors", folder / "users.npy", "--user-ids", folder / "user_ids.txt"
    )
    assert ask(live, "bob").source == "personal"
    assert ask(live, "ann").source == "fold_in"  # has no vector: the tower computes it


def test_vectors_of_users_that_it_does_not_reproduce_are_refused(
    folder: Path, complaint: Callable[..., str]
) -> None:
    np.save(folder / "users.npy", np.ones((1, DIM), np.float32))
    (folder / "user_ids.txt").write_text("bob\n")
    said = complaint("--user-vectors", folder / "users.npy", "--user-ids", folder / "user_ids.txt")
    assert (
        "tower.onnx: from the last 2 items of the history and the features it gives user 'bob' another vector"
        in said
    )
    assert "leave --user-vectors out" in said


def test_a_tower_of_features_alone_goes_with_any_vectors(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tower.onnx").write_bytes(files.tower(None, WEIGHTS))
    np.save(folder / "users.npy", np.ones((1, DIM), np.float32))
    (folder / "user_ids.txt").write_text("bob\n")
    _, live = imported(
        folder, capsys, "--user-vectors", folder / "users.npy", "--user-ids", folder / "user_ids.txt"
    )
    assert ask(live, "bob").source == "personal"
    assert ask(live, "ann").source == "fold_in"  # the mean of the history's vectors
    assert ask(live, "cleo").source == "features"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x93NUMPY", "not an ONNX model"),
        (files.tower(ITEMS[:5], WEIGHTS), "tower.onnx: can't answer a history of 1: .*out of data bounds"),
        (files.tower(ITEMS[:, :3].copy(), WEIGHTS[:, :3].copy()), r"answers \(1, 3\) float32, not \(1, 4\)"),
        (files.tower(ITEMS), "reads no features; leave --user-features out"),
        (
            files.model(files.graph([files.node("Gelu", [], [], files.field(7, "com.microsoft"))], [], [], [])),
            "operators of 'com.microsoft'",
        ),
    ],
)  # fmt: skip
def test_a_tower_that_cannot_serve_is_refused_by_name_and_reason(
    raw: bytes, reason: str, folder: Path, complaint: Callable[..., str]
) -> None:
    (folder / "tower.onnx").write_bytes(raw)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(complaint())


def test_a_tower_that_reads_features_wants_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = [part for part in flags(folder) if "feature" not in part]
    assert cli.main(without) == cli.BAD_INPUT
    assert "the tower reads features: give them with --user-features" in capsys.readouterr().err


def test_without_the_runtime_it_is_not_imported_untried(
    complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime is not installed" in complaint()


def test_a_history_too_long_to_serve_is_refused(complaint: Callable[..., str]) -> None:
    assert "--tower-history 5000: 1 to 1000 items" in complaint("--tower-history", 5000)
