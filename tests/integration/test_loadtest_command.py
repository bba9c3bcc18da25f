"""`reco loadtest` against the real service."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from factories import write_tiny_bundle
from running import TOKEN, listening, settings_for
from served import RECO

from service.app import create_app

FILE = """
[users]
ids = "100..240"
[requests]
models = "als, popular"
[search]
least = {least}
most = {least}
seconds = 0.5
[slo]
p99_ms = {p99}
rate = {rate}
"""


def loadtest(
    folder: Path, url: str, *, p99: float, rate: float = 0, token: str = TOKEN
) -> tuple[int, str, str]:
    (folder / "made.toml").write_text(FILE.format(least=40, p99=p99, rate=rate))
    done = subprocess.run(
        [RECO, "loadtest", "made.toml", "--url", url, "--html", "page.html", "--hgrm", "best.hgrm"],
        cwd=folder,
        env={**os.environ, "RECO_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loadtest")
    write_tiny_bundle(root)
    return root


def test_the_objective_decides_the_exit_code(artifacts: Path, tmp_path: Path) -> None:
    with listening(create_app(settings_for(artifacts))) as (host, port):
        url = f"http://{host}:{port}"
        code, out, err = loadtest(tmp_path, url, p99=1900)
        said = json.loads(out)
        assert (code, said["kept"], said["highest_rate"]) == (0, True, 40), err
        (step,) = said["steps"]
        assert (step["sent"], step["ok"], step["errors"]) == (step["ok"], step["sent"], 0)
        assert set(step["sources"]) <= {"personal", "popular", "segment_popular"}
        assert "<svg" in (tmp_path / "page.html").read_text()
        assert f"Total count = {step['ok']}" in (tmp_path / "best.hgrm").read_text()
        code, out, _ = loadtest(tmp_path, url, p99=0.001, rate=30)
        said = json.loads(out)
        assert (code, said["kept"], said["declared_rate"]) == (1, False, 30)
        code, out, _ = loadtest(tmp_path, url, p99=1900, token="wrong")
        assert code == 1
        assert json.loads(out)["steps"][0]["statuses"].keys() == {"401"}


def test_what_cannot_be_measured_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1", "https://x", "nonsense"):
        code, out, err = loadtest(tmp_path, url, p99=50)
        assert (code, out, err.count("\n")) == (2, "", 1), err
    done = subprocess.run(
        [RECO, "loadtest", "away.toml", "--url", "http://x"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"away.toml" in done.stderr
