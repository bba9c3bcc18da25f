"""Evaluation, the submission file and a running service give the same items for the same users."""

from __future__ import annotations

import csv
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from running import TOKEN, listening, settings_for

from loadtest.parity import verify
from models.commands import submit
from models.evaluation.opening import open_published
from models.evaluation.replay import replay
from models.evaluation.run import evaluate_model
from models.submission import validate_submission
from service.app import create_app
from service.cli import main
from service.recommender.plan import plan_for

MODELS = ("popular", "als", "knn", "ease", "lists", "default")
DATASET = tiny_dataset()
UNKNOWN_USER = 5


@dataclass(frozen=True)
class Served:
    """A bundle on disk, the users asked about, and a service that runs on the same bundle."""

    artifacts: Path
    users: Path
    user_ids: list[int]
    url: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("artifacts")
    write_tiny_bundle(root, dataset=DATASET, index="hnsw")
    user_ids = [*DATASET.user_ids.take(np.arange(DATASET.n_users))[::-1], UNKNOWN_USER]
    users = root / "users.csv"
    users.write_text("user_id\n" + "".join(f"{user}\n" for user in user_ids))
    with listening(create_app(settings_for(root, budget_ms=5_000))) as (host, port):
        yield Served(root, users, user_ids, f"http://{host}:{port}")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_TOKEN", TOKEN)


def command(served: Served, model: str, out: Path, *more: str) -> list[str]:
    where = ["--artifacts", str(served.artifacts), "--users", str(served.users), "--out", str(out)]
    return ["submit", *where, "--model", model, *more]


@pytest.mark.parametrize("model", MODELS)
def test_evaluation_submission_recommendations_and_service_agree(
    served: Served, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = str(len(served.user_ids))
    out = tmp_path / "submission.csv"
    assert main(command(served, model, out, "--verify", served.url, "--sample", everybody)) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["verified"]["users"] == len(served.user_ids)
    assert summary["verified"]["bundles"] == [summary["bundle"]]
    submitted = {user: list(items) for user, items in validate_submission(out).items.items()}

    live = open_published(served.artifacts)
    evaluation = evaluate_model(live, model, served.user_ids, [10] * len(served.user_ids))
    measured = dict(zip(evaluation.replay.user_ids, evaluation.replay.item_ids, strict=True))
    assert measured == submitted

    table = tmp_path / "recs.csv"
    where = ["--artifacts", str(served.artifacts), "--users", str(served.users), "--out", str(table)]
    assert main(["recommend", *where, "--model", model]) == 0
    with table.open() as file:
        rows = [(int(row["user_id"]), int(row["item_id"]), int(row["rank"])) for row in csv.DictReader(file)]
    assert rows == [
        (user, item, rank) for user in served.user_ids for rank, item in enumerate(submitted[user], start=1)
    ]

    answered = verify(served.url, model, submitted, k=10, token=TOKEN, bundle_id=live.bundle_id)
    assert (answered.asked, answered.differences) == (len(served.user_ids), ())


def test_stamp_names_the_bundle_and_the_real_model(served: Served, tmp_path: Path) -> None:
    assert main(command(served, "default", tmp_path / "s.csv")) == 0
    stamp = json.loads((tmp_path / "s.csv.json").read_text())
    assert (stamp["bundle"], stamp["model"], stamp["rows"]) == (
        open_published(served.artifacts).bundle_id,
        "als",
        len(served.user_ids),
    )


def test_service_with_another_bundle_is_exit_3_naming_the_first_user(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    dataset = tiny_dataset(seed=8)
    write_tiny_bundle(other, dataset=dataset, models=trained_models(dataset))
    changed = Served(other, served.users, served.user_ids, served.url)
    assert main(command(changed, "als", tmp_path / "s.csv", "--verify", served.url, "--sample", "3")) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 of 3 users differ, the first is user" in captured.err
    assert f"the service holds bundle {open_published(served.artifacts).bundle_id}" in captured.err


def test_one_item_in_another_place_is_found(served: Served) -> None:
    live = open_published(served.artifacts)
    answers = replay(live, plan_for("als", live), served.user_ids[:4], k=10)
    expected: dict[int | str, list[object]] = {
        user: list(items) for user, items in zip(answers.user_ids, answers.item_ids, strict=True)
    }
    swapped = expected[served.user_ids[2]]
    swapped[4], swapped[5] = swapped[5], swapped[4]
    (difference,) = verify(served.url, "als", expected, k=10, token=TOKEN).differences
    assert (difference.user_id, difference.reason) == (served.user_ids[2], "differs from place 5 on")
    assert difference.answered == answers.item_ids[2]


def test_user_beyond_what_the_service_takes_is_a_difference(served: Served) -> None:
    (difference,) = verify(served.url, "als", {10**9 + 1: [1]}, k=1, token=TOKEN).differences
    assert difference.answered is None
    assert difference.reason.startswith("status 404")


def test_sample_is_drawn_by_its_seed_and_no_larger_than_the_users(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(served, "als", tmp_path / "s.csv", "--verify", served.url, "--sample", "7")) == 0
    assert json.loads(capsys.readouterr().out)["verified"]["users"] == 7
    assert main(command(served, "als", tmp_path / "s.csv", "--verify", served.url, "--sample", "5000")) == 0
    assert json.loads(capsys.readouterr().out)["verified"]["users"] == len(served.user_ids)


def test_wrong_token_is_bad_input_that_names_the_variable(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "not-the-token")
    more = ("--verify", served.url, "--token-env", "OTHER_TOKEN")
    assert main(command(served, "als", tmp_path / "s.csv", *more)) == 2
    message = capsys.readouterr().err
    assert "OTHER_TOKEN" in message
    assert "not-the-token" not in message


def test_service_that_is_not_there_is_bad_input(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # bound, never listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(command(served, "als", tmp_path / "s.csv", "--verify", url)) == 2
    assert f"--verify: {url} can't be asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--k", "11"], "--k: a submission holds at most 10 items"),
        (["--k", "0"], "must be at least 1"),
        (["--model", "nope"], "has no 'nope'; it holds als, default, ease, knn, lists, popular"),
        (["--users", "gone.csv"], "gone.csv: no such file"),
        (["--artifacts", "nowhere"], "nothing is published in nowhere"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    served: Served, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(served, "als", tmp_path / "s.csv", *more)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "s.csv").exists()


def test_catalogue_too_small_for_full_lists_is_refused_by_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tiny_dataset(n_users=12, n_items=12, events_per_user=4)
    write_tiny_bundle(tmp_path, dataset=dataset, models=trained_models(dataset), index="exact")
    users = tmp_path / "users.txt"
    users.write_text(f"{UNKNOWN_USER}\n{dataset.user_ids.take(np.array([0]))[0]}\n")
    small = Served(tmp_path, users, [], "")
    assert main(command(small, "als", tmp_path / "s.csv")) == 2
    assert "row 2, column 'item_id': must hold exactly 10 items, holds 8" in capsys.readouterr().err


def test_the_verifier_is_found_by_its_entry_point() -> None:
    (found,) = metadata.entry_points(group=submit.VERIFIERS, name="http")
    assert found.load() is verify
