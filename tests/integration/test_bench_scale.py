"""The scale bench at a small size: every figure is there, and the answers it timed were right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "benchmarks" / "bench_scale.py"


def run(*words: str | Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report: dict[str, Any] = json.loads(line)
    return report, done.stderr


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    folder = tmp_path_factory.mktemp("scale")
    report, told = run(
        "--items", "300,700", "--users", "200,400", "--fixed-users", "200", "--fixed-items", "300", "--both", "none",
        "--graph-up-to", "300", "--dim", "16", "--svg", folder / "scale.svg", "--scratch", folder,
    )  # fmt: skip
    assert [path.name for path in folder.iterdir()] == ["scale.svg"]  # what was made is gone
    return report, told, (folder / "scale.svg").read_text()


def test_each_size_is_measured(measured: tuple[dict[str, Any], str, str]) -> None:
    report, told, _ = measured
    sizes = [(one["case"]["items"], one["case"]["users"], one["case"]["norms"]) for one in report["cases"]]
    assert sizes == [
        (300, 200, "equal"), (300, 200, "falling"), (300, 400, "falling"), (700, 200, "equal"), (700, 200, "falling"),
    ]  # fmt: skip
    assert report["left_out"] == []
    assert told.count("\n| ") == 1 + 5  # the headings, then a row each


def test_answers_were_whole_and_read_no_more_than_there_is(measured: tuple[dict[str, Any], str, str]) -> None:
    for one in measured[0]["cases"]:
        assert 0 < one["search"]["exact"]["rows_read"] <= one["case"]["items"]
        assert one["http"]["degraded"] == 0.0
        assert 0 < one["array_bytes"] < one["bundle_bytes"]
        assert one["ready_s"] > 0


def test_an_index_is_made_where_it_was_asked_for_and_measured(
    measured: tuple[dict[str, Any], str, str],
) -> None:
    for one in measured[0]["cases"]:
        with_graph = one["case"]["items"] == 300 and one["case"]["users"] == 200
        expected = {"hnsw"} if with_graph else set()
        if one["case"]["norms"] == "equal":
            expected.add("ivf")
        assert set(one["index_build_s"]) == set(one["index"]) == set(one["search"]) - {"exact"} == expected
        assert all(one["search"][name]["recall_at_10"] > 0.8 for name in expected)
        assert one["serves"] in {"exact", *expected}


def test_memory_adds_up(measured: tuple[dict[str, Any], str, str]) -> None:
    for one in measured[0]["cases"]:
        memory = one["memory"]
        assert {"parent", "worker 1", "worker 2"} <= set(memory["processes"])
        assert memory["first"] + memory["second"] == memory["together"]
        assert 0 < memory["second"] < memory["processes"]["worker 2"]["rss"]


def test_curves_are_drawn(measured: tuple[dict[str, Any], str, str]) -> None:
    picture = measured[2]
    assert picture.count("<svg") == 1
    assert (
        "items, falling norms: with graph" in picture
    )  # matplotlib writes each text as a comment beside its outlines


def test_what_would_begin_too_late_is_left_out() -> None:
    report, told = run("--items", "300", "--users", "none", "--both", "none", "--minutes", "0")
    assert report["cases"] == []
    assert report["left_out"]
    assert "left out" in told
