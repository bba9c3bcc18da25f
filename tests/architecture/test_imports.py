"""Who may import whom, and what importing the service brings in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OFFLINE_ONLY = (
    "torch",
    "pandas",
    "implicit",
    "pyarrow",
    "polars",
    "scipy",
    "matplotlib",
    "models",
    "loadtest",
)


def test_the_import_contracts_hold(component: Callable[[str, str], str]) -> None:
    lint = component("lint-imports", "make setup")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["service.app", "service.cli", "service.commands.serve"])
def test_importing_the_service_brings_in_nothing_of_training(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {OFFLINE_ONLY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_contract_that_is_broken_is_reported(component: Callable[[str, str], str], tmp_path: Path) -> None:
    """The contracts' own words, over a tree where `service` reaches into `models`."""
    lint = component("lint-imports", "make setup")
    for room in ("service", "models", "loadtest"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    (tmp_path / "models" / "als.py").touch()
    (tmp_path / "service" / "app.py").write_text("import models.als\n")
    settings = (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]
    first_contract = settings.split("[[tool.importlinter.contracts]]")[1]
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["service", "models", "loadtest"]\n'
        f"include_external_packages = true\n[[tool.importlinter.contracts]]{first_contract}"
    )
    done = subprocess.run(
        [lint, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "service.app -> models.als" in done.stdout
