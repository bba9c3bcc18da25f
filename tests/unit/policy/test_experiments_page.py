"""docs/experiments.md shows a file that is fit, and numbers that are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from service.policy import shadow
from service.policy.experiments_file import ExperimentTable, TreatmentTable, read_experiments

PAGE = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text("utf-8")


def test_its_files_are_fit(tmp_path: Path) -> None:
    shown = []
    for example in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / "e.toml").write_text(example, encoding="utf-8")
        read = read_experiments(tmp_path / "e.toml")
        shown.append((list(read.experiments), list(read.shadows)))
    assert shown == [(["ranking", "curious"], ["knn"]), (["varied"], [])]


def test_it_names_every_key() -> None:
    for key in {*ExperimentTable.model_fields, *TreatmentTable.model_fields}:
        assert f"`{key}`" in PAGE, key


def test_its_limits_are_the_codes() -> None:
    assert (shadow.MAX_WAITING, shadow.MAX_AGE_S, shadow.BUDGET_S, shadow.IDLE_S, shadow.COMPARED) == (
        64, 2.0, 0.005, 0.002, 100,
    )  # fmt: skip
    for words in ("64 waited", "waited 2 s", "more than 5 ms", "come for 2 ms", "first 100 places"):
        assert words in PAGE.replace("\n", " ")
