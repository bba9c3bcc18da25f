"""A `reco serve` that is killed and started again: what a harness does to a service from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

RECO = Path(sys.executable).with_name("reco")
PATIENCE_S = 60.0
_WORKER = "reco-worker"
_URL = re.compile(rb"ready on http://([\d.]+):(\d+)")


class Unkept(Exception):
    """A promise was not kept, or the service could not be run."""


def reco(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run one command of `reco` to its end, whatever its exit code."""
    return subprocess.run([RECO, *words], capture_output=True, check=False)  # noqa: S603 - our own program


def make_artifacts(folder: Path) -> Path:
    """Build a small bundle out of made-up data; returns its artifacts folder. Raises Unkept."""
    data, artifacts = str(folder / "data"), str(folder / "artifacts")
    size = ["--users", "300", "--items", "100", "--interactions", "3000", "--seed", "1"]
    for words in (
        ["data", "generate", *size, "--out", data],
        ["build", "--data", data, "--out", artifacts, "--models", "popular"],
    ):
        done = reco(*words)
        if done.returncode != 0:
            raise Unkept(done.stderr.decode())
    return folder / "artifacts"


class KilledService:
    """One service at a time, on a free port each time it is started. `settings`: RECO_ variables."""

    def __init__(self, artifacts: Path, folder: Path, workers: int, settings: Mapping[str, str]) -> None:
        self._artifacts, self._folder, self._workers = artifacts, folder, workers
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("RECO_", "PROMETHEUS_"))
        }
        self._log = folder / "stdout"
        self._environment = {**clean, "RECO_AUTH": "off", "RECO_ACCESS_LOG": "off", **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.address: tuple[str, int] | None = None
        """Host and port; None while it is down."""

    def start(self) -> None:
        """Start and wait until it is ready. Raises Unkept."""
        said = self._folder / "stderr"
        words: list[str | Path] = ["serve", "--artifacts", self._artifacts, "--port", "0"]
        command = [RECO, *words, "--workers", str(self._workers)]
        with said.open("wb") as stderr, self._log.open("wb") as stdout:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command, cwd=self._folder, env=self._environment, stdout=stdout, stderr=stderr
            )
        until = time.monotonic() + PATIENCE_S
        while (found := _URL.search(said.read_bytes())) is None:
            if self._process.poll() is not None or time.monotonic() > until:
                raise Unkept(f"the service did not start: {said.read_text()}")
            time.sleep(0.01)
        self.address = (found[1].decode(), int(found[2]))

    def said(self, words: bytes) -> int:
        """How often its log, which is not of requests, says something."""
        return self._log.read_bytes().count(words)

    def workers(self) -> list[int]:
        """Pids of the workers. Raises Unkept where the service has ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise Unkept(f"the service ended: {(self._folder / 'stderr').read_text()}")
        return [pid for pid in self._children() if _name_of(pid) == _WORKER]

    def processes(self) -> list[int]:
        """Pids of the parent, the workers, and the loaders they were forked from."""
        assert self._process is not None
        return [self._process.pid, *self._children()]

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def worker_with(self, folder: Path, choose: int) -> int:
        """Wait until all workers have a file in the folder open, and choose one. Raises Unkept."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            pids = self.workers()
            if len(pids) == self._workers and all(_uses(pid, folder) for pid in pids):
                return pids[choose % len(pids)]
            time.sleep(0.005)
        raise Unkept("killed workers were not replaced")

    def kill_worker(self, pid: int) -> None:
        """Kill -9 a worker and wait until its parent has seen it. Raises Unkept."""
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + PATIENCE_S
        while pid in self.workers():
            if time.monotonic() > until:
                raise Unkept(f"the end of worker {pid} was not noticed")
            time.sleep(0.001)

    def kill_all(self) -> None:
        """Kill -9 the parent and every worker at once."""
        assert self._process is not None
        pids = self.processes()
        self.address = None
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def stop(self) -> None:
        """End it as an operator would. Raises Unkept for another exit code than 0."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        self.address = None
        if code != 0:
            raise Unkept(f"the service ended with {code}")

    def close(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(Unkept, ProcessLookupError, FileNotFoundError):
                self.kill_all()


def _name_of(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _uses(pid: int, folder: Path) -> bool:
    """Whether a process has a file in the folder open."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if descriptor.readlink().is_relative_to(folder):
                    return True
    return False
