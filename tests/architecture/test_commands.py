"""Every console command that pyproject.toml names exists and keeps the contract of `service.cli`."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["reco.commands"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_loaded_and_keeps_the_contract(name: str) -> None:
    command = importlib.import_module(COMMANDS[name])
    assert command.HELP
    assert command.HELP.strip().splitlines() == [command.HELP]
    assert callable(command.configure)
    assert callable(command.run)


def test_every_command_module_is_reachable(tracked: list[Path]) -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in tracked
        if path.parent.name == "commands" and "\nHELP" in path.read_text("utf-8")
    }
    assert modules == set(COMMANDS.values())


@pytest.fixture(scope="module")
def serving_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the Dockerfile builds: from `service` and what says how, compiled anew."""
    source = tmp_path_factory.mktemp("source")
    copy(ROOT / "pyproject.toml", source)
    copy(ROOT / "README.md", source)
    copy(ROOT / "hatch_build.py", source)
    copytree(ROOT / "service", source / "service", ignore=ignore_patterns("__pycache__", "*.so"))
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        ".",
    ]
    done = subprocess.run([*build, "."], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = source.glob("*.whl")
    return wheel


def test_the_serving_wheel_holds_only_the_service(serving_wheel: Path) -> None:
    with zipfile.ZipFile(serving_wheel) as wheel:
        rooms = {name.partition("/")[0] for name in wheel.namelist()}
        compiled = [name for name in wheel.namelist() if name.startswith("service/native/")]
    assert {room for room in rooms if not room.endswith(".dist-info")} == {"service"}
    assert [name for name in compiled if name.endswith((".so", ".pyd"))]
    assert not [name for name in compiled if name.endswith((".c", ".h"))]


def test_the_serving_wheel_offers_only_its_own_commands(serving_wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(serving_wheel) as wheel:
        wheel.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "service.cli", "--help"],  # -S: nothing of this environment
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    offered = {line.split("  ")[1] for line in done.stdout.splitlines() if line.startswith("  ")}
    serving = {name.replace(".", " ") for name, module in COMMANDS.items() if module.startswith("service.")}
    training = {name.replace(".", " ") for name in COMMANDS} - serving
    assert serving <= offered
    assert not training & offered
