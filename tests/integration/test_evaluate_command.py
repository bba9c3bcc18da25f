"""`reco evaluate` and `reco recommend`, judged from outside by the plain reference."""

from __future__ import annotations

import csv
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, write_tiny_bundle
from reference_judge import judge

from service.cli import main

DATASET = tiny_dataset()
MODELS = {"popular", "als", "knn", "ease", "lists"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published bundle, its training rows with repeats, and held-out rows with strangers among them."""
    root = tmp_path_factory.mktemp("evaluate")
    write_tiny_bundle(root / "artifacts", dataset=DATASET, index="hnsw")
    rows = list(
        zip(DATASET.user_ids.take(DATASET.user_rows), DATASET.item_ids.take(DATASET.item_rows), strict=True)
    )
    write(root / "train.csv.gz", [*rows, *rows[::3]])
    draw = np.random.default_rng(5)
    users = draw.choice(DATASET.user_ids.take(np.arange(DATASET.n_users)), 90).tolist()
    items = draw.choice(DATASET.item_ids.take(np.arange(DATASET.n_items)), 90).tolist()
    write(root / "test.csv", [*zip(users, items, strict=True), (users[0], items[0]), (5, 10), (users[0], 7)])
    return root


def write(path: Path, rows: list[tuple[int, int]]) -> None:
    text = "user_id,item_id,rating\n" + "".join(f"{user},{item},4\n" for user, item in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def read(path: Path) -> list[tuple[int, int]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return [(int(row["user_id"]), int(row["item_id"])) for row in csv.DictReader(text.splitlines())]


def evaluate(folder: Path, *more: str) -> int:
    return main(
        ["evaluate", "--artifacts", str(folder / "artifacts"), "--test", str(folder / "test.csv"), *more]
    )


def recommend(folder: Path, model: str, users: list[int], k: int, *more: str) -> dict[int, list[int]]:
    (folder / "users.txt").write_text("".join(f"{user}\n" for user in users))
    where = ["--artifacts", str(folder / "artifacts"), "--users", str(folder / "users.txt")]
    assert (
        main(
            [
                "recommend",
                *where,
                "--model",
                model,
                "--k",
                str(k),
                "--out",
                str(folder / "recs.csv.gz"),
                *more,
            ]
        )
        == 0
    )
    recs: dict[int, list[int]] = {}
    for user, item in read(folder / "recs.csv.gz"):
        recs.setdefault(user, []).append(item)
    return recs


@pytest.mark.parametrize("model", sorted(MODELS))
def test_json_line_agrees_with_the_judge_to_five_decimals(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    test = read(folder / "test.csv")
    recs = recommend(folder, model, sorted({user for user, _ in test}), 10)
    capsys.readouterr()
    assert evaluate(folder, "--model", model, "--k", "10,4", "--train", str(folder / "train.csv.gz")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for k in (4, 10):
        slow = judge(recs, test, read(folder / "train.csv.gz"), k)
        assert {name: result[name] for name in slow} == {
            name: round(value, 5) for name, value in slow.items()
        }
    assert (result["users"], result["test_rows"]) == (len(recs), len(set(test)))


def test_all_models_are_measured_without_a_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert set(result["models"]) == MODELS
    assert result["default"] == "als"
    for name in MODELS:
        assert name in captured.err
        low, high = result["models"][name]["ci"]["NDCG@10"]
        assert low <= result["models"][name]["NDCG@10"] <= high
    assert result["models"]["als"]["costs"]["search"]["served"] in {"exact", "hnsw"}


def test_one_model_is_reported_by_cohort_and_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--model", "default") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["model"] == "als"
    assert set(result["by_cohort"]) == {"warm", "cold"}
    assert set(result["by_source"]) == {"personal", "segment_popular", "popular"}
    assert sum(group["users"] for group in result["by_source"].values()) == result["users"]
    for title in ("all metrics", "by cohort", "by source", "costs"):
        assert title in captured.err


class Links(HTMLParser):
    """Collects what a page would fetch, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.referred: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "data", "srcset", "xlink:href"} and value:
                (self.referred.add(value[1:]) if value.startswith("#") else self.fetched.append(value))
            if name == "id" and value:
                self.ids.append(value)
            for reference in re.findall(r"url\(#([^)]+)\)", value or ""):
                self.referred.add(reference)
        if tag in {"script", "link", "iframe", "img", "object"}:
            self.fetched.append(tag)


def test_report_is_one_page_that_fetches_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--k", "10,5", "--html", str(folder / "report.html")) == 0
    page = (folder / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.fetched == []
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+|@import", page) == []
    assert page.count("<svg") == 3
    result = json.loads(capsys.readouterr().out)
    for name, row in result["models"].items():
        assert name in page
        assert f"{row['NDCG@10']:.4f}" in page
        assert f"{row['NDCG@5']:.4f}" in page


def test_pictures_on_one_page_keep_their_ids_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--html", str(folder / "report.html")) == 0
    links = Links()
    links.feed((folder / "report.html").read_text())
    assert len(links.ids) == len(set(links.ids))
    assert links.referred <= set(links.ids)


def test_names_in_the_report_are_escaped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = folder / "<b>test.csv"
    odd.write_bytes((folder / "test.csv").read_bytes())
    assert evaluate(folder, "--model", "als", "--test", str(odd), "--html", str(folder / "odd.html")) == 0
    page = (folder / "odd.html").read_text()
    assert "&lt;b&gt;test.csv" in page
    assert "<b>test.csv" not in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--k", "0"], "must be at least 1"),
        (["--k", "ten"], "--k"),
        (["--model", "nope"], "--model: bundle"),
        (["--test", "gone.csv"], "gone.csv: no such file"),
        (["--html", "no-folder/report.html", "--model", "popular"], "no-folder/report.html can't be written"),
    ],
)
def test_bad_usage_is_exit_2(
    folder: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, *more) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_fault_in_the_test_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = folder / "bad.csv"
    bad.write_text("user_id,item_id\n100,10\n103,1.5\n")
    assert evaluate(folder, "--test", str(bad)) == 2
    assert "bad.csv, row 2, column 'item_id': not an integer id" in capsys.readouterr().err


def test_recommendations_are_ranked_and_only_for_those_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = int(DATASET.user_ids.take(DATASET.user_rows[:1])[0])
    recs = recommend(folder, "als", [user, 5, user], 7)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(recs) == [user, 5]
    assert [len(items) for items in recs.values()] == [7, 7]
    assert (summary["users"], summary["rows"], summary["model"]) == (2, 14, "als")
    seen = set(DATASET.item_ids.take(DATASET.item_rows[DATASET.user_rows == DATASET.user_ids.row_of(user)]))
    assert not seen & set(recs[user])
    with gzip.open(folder / "recs.csv.gz", "rt") as file:
        assert [row["rank"] for row in csv.DictReader(file)] == [str(rank) for rank in [*range(1, 8)] * 2]


def test_only_allowed_items_are_recommended(folder: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "items.txt"
    allowed.write_text("10\n12\n14\n86\n")
    for model in ("als", "knn", "lists", "popular"):
        recs = recommend(folder, model, [100, 5], 4, "--allow", str(allowed))
        assert all(items and set(items) <= {10, 12, 14, 86} for items in recs.values())
    allowed.write_text("10\nx\n")
    where = ["--artifacts", str(folder / "artifacts"), "--users", str(folder / "users.txt")]
    assert main(["recommend", *where, "--allow", str(allowed), "--out", str(tmp_path / "r.csv")]) == 2


def test_bad_user_is_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id\n100\nbob\n")
    where = [
        "--artifacts",
        str(folder / "artifacts"),
        "--users",
        str(users),
        "--out",
        str(tmp_path / "r.csv"),
    ]
    assert main(["recommend", *where]) == 2
    assert "users.csv, row 2, column 'user_id': not an integer id" in capsys.readouterr().err
    assert not (tmp_path / "r.csv").exists()
