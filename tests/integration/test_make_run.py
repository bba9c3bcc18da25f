"""What `make run` does after set-up: from a folder of interactions to the answer of the line that it prints."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated data set, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("run") / "small data"
    size = ("--users", "400", "--items", "200", "--interactions", "6000", "--seed", "1")
    subprocess.run(
        [BIN / "reco", "data", "generate", *size, "--out", folder], check=True, capture_output=True
    )
    return folder


def start(artifacts: Path, data: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECO_")}
    environment |= {"BIN": str(BIN), "ARTIFACTS": str(artifacts), "DATA": str(data), "PORT": str(port)}
    environment |= {"HOST": "127.0.0.1", "BUILD_ARGS": "--models als --tune off"}
    with log.open("wb") as out:
        return subprocess.Popen(
            ["bash", ROOT / "deploy" / "run.sh"],
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 300
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def served(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, str]]:
    """The artifacts folder, the port and what was printed, while it serves."""
    artifacts = tmp_path_factory.mktemp("made") / "artifacts"
    log, port = artifacts.parent / "log", free_port()
    process = start(artifacts, data, port, log)
    try:
        wait_until_ready(port, process, log)
        yield artifacts, port, log.read_text()
    finally:
        stop(process)


def test_the_printed_line_gets_a_personal_answer(served: tuple[Path, int, str], tmp_path: Path) -> None:
    _, port, printed = served
    (line,) = re.findall(r"^ +(curl .*)$", printed, re.MULTILINE)
    url = shlex.split(line)[-1]
    assert url.startswith(f"http://127.0.0.1:{port}/reco/default/")
    header = subprocess.run(
        ["bash", "-c", f"printf %s {line.split(' -H ')[1].rsplit(' ', 1)[0]}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    name, _, value = header.partition(": ")
    answer = httpx.get(url, headers={name: value}, timeout=10)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert len(set(body["items"])) == len(body["items"]) == 10
    # On so little data popularity may validate best and be the default; ALS answers this user personally.
    personal = httpx.get(url.replace("/default/", "/als/"), headers={name: value}, timeout=10)
    assert personal.headers["x-reco-source"] == "personal"
    assert httpx.get(url, timeout=10).status_code == 401


def test_the_token_is_this_machines_own_and_for_its_owner_only(served: tuple[Path, int, str]) -> None:
    artifacts, _, printed = served
    token = artifacts / "demo-token"
    assert len(token.read_text().strip()) >= 43  # 32 random bytes in base64
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text().strip() not in printed


def test_a_second_start_serves_what_the_first_built(
    served: tuple[Path, int, str], data: Path, tmp_path: Path
) -> None:
    artifacts, _, _ = served
    pointer = (artifacts / "small data" / "current.json").read_bytes()
    port, log = free_port(), tmp_path / "log"
    process = start(artifacts, data, port, log)
    try:
        wait_until_ready(port, process, log)
    finally:
        stop(process)
    assert (artifacts / "small data" / "current.json").read_bytes() == pointer
    assert "serving what was built before" in log.read_text()


def test_other_data_of_the_same_name_is_not_mistaken_for_it(
    served: tuple[Path, int, str], tmp_path: Path
) -> None:
    artifacts, _, _ = served
    other = tmp_path / "small data"
    other.mkdir()
    process = start(artifacts, other, free_port(), tmp_path / "log")
    assert process.wait(timeout=60) == 2
    assert "was built from other data" in (tmp_path / "log").read_text()
