"""`reco serve` with experiments: a bad file ends it in one line, and all workers divide users alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
from served import PATIENCE_S, RECO, served

GOOD = """
[experiments.x]
control = "a"
treatments = { a = {}, b = { model = "knn" } }
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('"a"', '"c"'), "[experiments.x]: 'control' names no treatment: 'c'"),
        (GOOD.replace("knn", "nope"), "[experiments.x.treatments.b] model: bundle"),
    ],
)
def test_a_file_that_is_not_fit_is_one_line_and_exit_code_2(
    artifacts: Path, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "experiments.toml"
    file.write_text(text, encoding="utf-8")
    ended = subprocess.run(
        [RECO, "serve", "--artifacts", artifacts, "--port", "0"],
        env={"RECO_AUTH": "off", "RECO_EXPERIMENTS": str(file)},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert f"{file}: {said}" in line


def test_workers_divide_users_alike_whatever_becomes_of_the_file(artifacts: Path, tmp_path: Path) -> None:
    file = tmp_path / "experiments.toml"
    file.write_text(GOOD, encoding="utf-8")
    users = range(100, 130)
    env = {"RECO_EXPERIMENTS": str(file), "RECO_MAX_REQUESTS": "100"}
    with served(artifacts, tmp_path / "run", "--workers", "2", env=env) as service:
        before, seen = service.workers, set()
        file.write_text("not fit any more", encoding="utf-8")
        first: dict[int, str] = {}
        for _ in range(15):
            for user in users:
                with httpx.Client(
                    base_url=service.url, headers=service.headers, timeout=PATIENCE_S
                ) as client:
                    treatment = client.get(f"/reco/default/{user}").headers["x-reco-treatment"]
                assert first.setdefault(user, treatment) == treatment
            seen |= service.workers
        assert seen - before, "no worker was replaced"
        counted = service.counted("reco_experiment_assignments_total")
    assert set(first.values()) == {"x=a", "x=b"}
    assert sum(counted.values()) == 15 * len(users)
