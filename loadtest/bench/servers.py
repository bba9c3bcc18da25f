"""The measured services: each a process of its own, on a free port, on the servers' core."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from loadtest.bench.data import RECO
from loadtest.bench.errors import BenchError

PATIENCE_S = 120.0
_URL = re.compile(rb"(?:ready|running) on (?:\x1b\[1m)?http://127\.0\.0\.1:(\d+)")


def cores() -> tuple[int, int] | None:
    """Core of the servers and core of the generator; None where there is one only, or none can be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    found = sorted(os.sched_getaffinity(0))
    return (found[0], found[1]) if len(found) > 1 else None


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Let processes that are started within run on one core only; None: on any."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def reco_command(artifacts: Path, retriever: str) -> list[str]:
    """`reco serve` of one worker."""
    words = [
        "serve",
        "--artifacts",
        str(artifacts),
        "--port",
        "0",
        "--workers",
        "1",
        "--retriever",
        retriever,
    ]
    return [str(RECO), *words]


def uvicorn_command(rung: str) -> list[str]:
    """Uvicorn with a rung, at its fastest."""
    module = f"loadtest.bench.rungs.{rung}:app"
    words = ["--port", "0", "--no-access-log", "--loop", "uvloop", "--http", "httptools", "--no-use-colors"]
    return [sys.executable, "-m", "uvicorn", module, *words]


@contextlib.contextmanager
def served(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    core: int | None,
    port: int | None = None,
) -> Iterator[int]:
    """Run a service until the end of the block; gives its port. Raises BenchError if it does not start.

    `port`: where it was told to listen; without one it says so itself.
    """
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("RECO_", "PROMETHEUS_"))
    }
    clean["OPENBLAS_NUM_THREADS"] = clean["OMP_NUM_THREADS"] = "1"
    said = folder / f"stderr-{time.monotonic_ns()}"
    with said.open("wb") as stderr, pinned(core):
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command, env={**clean, **environment}, stdout=subprocess.DEVNULL, stderr=stderr
        )
    try:
        yield _port(process, said, port)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], said: Path, told: int | None) -> int:
    until = time.monotonic() + PATIENCE_S
    while True:
        if told is not None and _accepts(told):
            return told
        if told is None and (found := _URL.search(said.read_bytes())) is not None:
            return int(found[1])
        if process.poll() is not None or time.monotonic() > until:
            raise BenchError(f"{process.args!r} did not start: {said.read_text(errors='replace')}")
        time.sleep(0.01)


def _accepts(port: int) -> bool:
    """Whether its root is answered there: some listen before they know their routes."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1):
            return True
    except urllib.error.HTTPError as error:
        return error.code not in {404, 503}
    except OSError:
        return False
