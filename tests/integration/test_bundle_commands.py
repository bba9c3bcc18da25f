"""`reco bundle list / publish / rollback / verify` and `reco models`, as somebody types them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from factories import tiny_dataset, write_tiny_bundle

from service import cli
from service.bundle.store import ArtifactStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the folder of artifacts: exit code, standard output, standard error."""

    def command(*words: str) -> tuple[int, str, str]:
        code = cli.main([*words, "--artifacts", str(tmp_path)])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    """Ids of two bundles, the second published after the first."""
    return [
        write_tiny_bundle(tmp_path, index="hnsw").name,
        write_tiny_bundle(tmp_path, dataset=tiny_dataset(70), default_model="knn").name,
    ]


def test_list_shows_every_bundle_and_stars_the_published(run: Run, versions: list[str]) -> None:
    code, out, _ = run("bundle", "list")
    assert code == 0
    header, first, second = out.splitlines()
    assert header.split() == ["bundle", "created", "data", "users", "items", "MB", "models"]
    assert first.split()[0] == versions[0]
    assert second.split()[:2] == ["*", versions[1]]
    assert second.split()[4:6] == ["70", "40"]


def test_list_as_json(run: Run, versions: list[str]) -> None:
    _, out, _ = run("bundle", "list", "--json")
    listed = orjson.loads(out)
    assert listed["published"] == versions[1]
    assert [bundle["bundle_id"] for bundle in listed["bundles"]] == versions
    assert listed["bundles"][1]["default"] == "knn"
    assert listed["bundles"][0]["models"] == ["als", "ease", "knn", "lists", "popular"]


def test_list_of_an_empty_folder_says_so(run: Run) -> None:
    code, out, _ = run("bundle", "list")
    assert code == 0
    assert out.startswith("no bundles in")


def test_list_goes_on_past_a_damaged_bundle(run: Run, versions: list[str], tmp_path: Path) -> None:
    (tmp_path / "bundles" / versions[0] / "manifest.json").write_text("{")
    code, out, _ = run("bundle", "list")
    assert code == 0
    assert "damaged: bundle refused: manifest.json" in out
    assert versions[1] in out
    damaged = orjson.loads(run("bundle", "list", "--json")[1])["bundles"]
    assert [bundle["bundle_id"] for bundle in damaged if "damaged" in bundle] == [versions[0]]


def test_verify_checks_the_published_bundle_or_the_one_named(run: Run, versions: list[str]) -> None:
    assert orjson.loads(run("bundle", "verify")[1])["bundle_id"] == versions[1]
    checked = orjson.loads(run("bundle", "verify", versions[0])[1])
    assert (checked["bundle_id"], checked["verified"]) == (versions[0], True)
    assert checked["files"] == 29


def test_publish_and_rollback_move_the_pointer(run: Run, versions: list[str], tmp_path: Path) -> None:
    code, out, _ = run("bundle", "rollback")
    assert (code, orjson.loads(out)) == (0, {"published": versions[0], "before": versions[1]})
    assert ArtifactStore(tmp_path).current().name == versions[0]
    code, out, _ = run("bundle", "publish", versions[1])
    assert (code, orjson.loads(out)) == (0, {"published": versions[1], "before": versions[0]})
    assert ArtifactStore(tmp_path).current().name == versions[1]


def test_publish_refuses_a_damaged_bundle_and_the_old_one_stays(
    run: Run, versions: list[str], tmp_path: Path
) -> None:
    (tmp_path / "bundles" / versions[0] / "als" / "index.hnsw").write_bytes(b"")
    code, out, err = run("bundle", "publish", versions[0])
    assert (code, out) == (3, "")
    assert "als/index.hnsw: 0 bytes, the manifest says" in err
    assert ArtifactStore(tmp_path).current().name == versions[1]


def test_publish_mends_a_damaged_pointer(run: Run, versions: list[str], tmp_path: Path) -> None:
    (tmp_path / "current.json").write_text("{")
    assert run("bundle", "verify")[0] == 2
    assert run("bundle", "list")[0] == 0
    assert run("bundle", "publish", versions[0])[0] == 0
    assert run("bundle", "verify")[0] == 0


@pytest.mark.parametrize("words", [("bundle", "publish"), ("bundle", "verify"), ("models", "--bundle")])
def test_an_unknown_bundle_is_bad_input(run: Run, versions: list[str], words: tuple[str, ...]) -> None:
    code, out, err = run(*words, "0123456789abcdef")
    assert (code, out) == (2, "")
    assert "no bundle '0123456789abcdef'" in err
    assert versions[1] in err  # what there is


def test_rollback_with_nowhere_to_go_is_bad_input(run: Run, versions: list[str]) -> None:
    run("bundle", "rollback")
    code, _, err = run("bundle", "rollback")
    assert code == 2
    assert "no bundle was published before this one" in err


@pytest.mark.parametrize("words", [("bundle", "verify"), ("bundle", "rollback"), ("models",)])
def test_nothing_published_is_bad_input(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert "nothing is published" in err


def test_a_missing_folder_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bundle", "list", "--artifacts", str(tmp_path / "none")]) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_the_folder_is_the_one_that_would_be_served(
    versions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECO_ARTIFACTS", str(tmp_path))
    assert cli.main(["bundle", "verify"]) == 0
    assert versions[1] in capsys.readouterr().out


def test_models_shows_kind_space_retriever_and_recall(run: Run, versions: list[str]) -> None:
    code, out, _ = run("models", "--bundle", versions[0])
    assert code == 0
    rows = {line[1:].split()[0]: line for line in out.splitlines()[3:]}
    assert rows["als"].split()[:6] == ["*", "als", "factors", "8", "ip", "hnsw"]
    assert rows["knn"].split()[:2] == ["knn", "item_item"]
    shown = orjson.loads(run("models", "--bundle", versions[0], "--json")[1])
    als = next(model for model in shown["models"] if model["name"] == "als")
    assert als["default"] is True
    assert 0.9 < als["recall_at_10"] <= 1.0
    assert orjson.loads(run("models", "--json")[1])["default"] == "knn"


def test_models_of_a_damaged_bundle_is_refused(run: Run, versions: list[str], tmp_path: Path) -> None:
    (tmp_path / "bundles" / versions[1] / "golden.json").write_bytes(b"")
    code, _, err = run("models")
    assert code == 3
    assert "golden.json" in err


def test_the_program_itself_leaves_with_3_and_one_line(versions: list[str], tmp_path: Path) -> None:
    (tmp_path / "bundles" / versions[1] / "golden.json").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "bundle", "verify", "--artifacts", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"reco: bundle refused: golden.json: {done.stderr.split('golden.json: ')[1].strip()}"
    ]
