"""`reco compare`: paired figures that agree with separate ones, cohorts that add up, a page with both lists."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from models.commands import compare
from models.evaluation.opening import open_published
from models.evaluation.run import evaluate_model
from service.errors import InputError

Reco = Callable[..., dict[str, Any]]


@pytest.fixture
def reco(capsys: pytest.CaptureFixture[str]) -> Reco:
    def run(*words: object) -> dict[str, Any]:
        parser = argparse.ArgumentParser()
        compare.configure(parser)
        assert compare.run(parser.parse_args([str(word) for word in words])) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


@pytest.fixture(scope="module")
def test_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four items a user, of the user's own block, which the tiny models know to be theirs."""
    path = tmp_path_factory.mktemp("test") / "test.csv"
    rng = np.random.default_rng(5)
    rows = [
        f"{100 + 3 * user},{10 + 2 * item}"
        for user in range(60)
        for item in rng.choice(np.arange(user % 2, 40, 2), 4, replace=False).tolist()
    ]
    path.write_text("user_id,item_id\n" + "\n".join([*rows, "5,10", "8,11"]) + "\n")
    return path


def test_its_figures_are_those_of_separate_evaluations(artifacts: Path, test_file: Path, reco: Reco) -> None:
    found = reco(artifacts, artifacts, "--test", test_file, "--models", "popular,ease")
    rows = [line.split(",") for line in test_file.read_text().splitlines()[1:]]
    users, items = [int(user) for user, _ in rows], [int(item) for _, item in rows]
    live = open_published(artifacts)
    alone = [evaluate_model(live, name, users, items) for name in ("popular", "ease")]
    for name in ("NDCG@10", "Recall@10", "MRR@10"):
        told = found["metrics"][name]
        assert told["first"] == pytest.approx(alone[0].metrics[name], abs=1e-5)
        assert told["second"] == pytest.approx(alone[1].metrics[name], abs=1e-5)
        assert told["effect"] == pytest.approx(told["second"] - told["first"], abs=2e-5)
        assert told["lower"] <= told["effect"] <= told["upper"]
        assert told["significant"] == (told["lower"] > 0 or told["upper"] < 0)
    assert found["coverage@10"] == pytest.approx([one.metrics["coverage@10"] for one in alone], abs=1e-5)
    assert (found["users"], found["first"]["model"], found["second"]["model"]) == (62, "popular", "ease")


def test_cohorts_divide_the_users(artifacts: Path, test_file: Path, reco: Reco) -> None:
    found = reco(artifacts, artifacts, "--test", test_file, "--models", "popular,ease")
    for kind, names in (("history", {"0", "5-19"}), ("segment", {"everybody", "even", "odd"})):
        groups = [group for group in found["cohorts"] if group["kind"] == kind]
        assert {group["name"] for group in groups} == names
        assert sum(group["users"] for group in groups) == 62
        total = sum(
            group["users"] * group["difference"]["effect"]
            for group in groups
            if group["difference"] is not None
        )
        small = sum(group["users"] for group in groups if group["difference"] is None)
        assert total / 62 == pytest.approx(found["metrics"]["NDCG@10"]["effect"], abs=1e-3 + small / 62)
    newcomers = next(group for group in found["cohorts"] if group["name"] == "0")
    assert (newcomers["users"], newcomers["difference"]) == (7, None)
    assert newcomers["won"] == newcomers["lost"] == 0  # both answer newcomers by what is popular


def test_a_bundle_against_itself_is_the_same(artifacts: Path, test_file: Path, reco: Reco) -> None:
    found = reco(artifacts, artifacts, "--test", test_file)
    assert found["overlap@10"] == {"mean": 1.0, "lower": 1.0, "upper": 1.0}
    assert all(one["effect"] == 0 and not one["significant"] for one in found["metrics"].values())
    assert all(group["won"] == group["lost"] == 0 for group in found["cohorts"])


def test_two_bundles_with_other_catalogues_are_compared_by_ids(
    artifacts: Path, tmp_path: Path, test_file: Path, reco: Reco
) -> None:
    data = tiny_dataset(n_items=30)
    bundle = write_tiny_bundle(tmp_path, dataset=data, models=trained_models(data))
    found = reco(artifacts, bundle, "--test", test_file, "--models", "ease", "--k", 5)
    assert found["second"]["bundle"] == bundle.name != found["first"]["bundle"]
    assert 0 < found["overlap@5"]["mean"] < 1


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_shows_users_side_by_side(
    artifacts: Path, test_file: Path, tmp_path: Path, reco: Reco
) -> None:
    page = tmp_path / "page.html"
    reco(
        artifacts, artifacts, "--test", test_file, "--models", "popular,ease", "--html", page, "--examples", 3
    )
    words = Words()
    words.feed(page.read_text())
    assert words.tags.count("ol") == 6
    assert words.tags.count("li") == 60
    assert "script" not in words.tags
    text = " ".join(words.text)
    for part in ("gains most", "loses most", "drawn", "Title 3", "popular", "ease"):
        assert part in text


def test_other_kinds_of_ids_are_refused(
    artifacts: Path, str_artifacts: Path, test_file: Path, reco: Reco
) -> None:
    with pytest.raises(InputError, match="ids of other kinds"):
        reco(artifacts, str_artifacts, "--test", test_file)
    with pytest.raises(InputError, match="has no 'nope'"):
        reco(artifacts, artifacts, "--test", test_file, "--models", "nope")
