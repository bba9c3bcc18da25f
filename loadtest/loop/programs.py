"""`reco` as a subprocess: commands that end with a line of JSON, and a service that runs beside them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

RECO = Path(sys.executable).with_name("reco")
_READY = re.compile(r"ready on (http://[\d.]+:\d+)")
_PATIENCE_S = 60.0
_POLL_S = 0.05


class LoopError(Exception):
    """A step that failed; the message is what its program said."""


def reco(
    *words: object, env: dict[str, str] | None = None, allowed: tuple[int, ...] = (0,)
) -> dict[str, Any]:
    """Run a command and return its last line, read as JSON. Raises LoopError on an exit code that isn't allowed."""
    line = [str(RECO), *map(str, words)]
    done = subprocess.run(  # noqa: S603 - our own program
        line, capture_output=True, text=True, check=False, env={**_clean(), **(env or {})}
    )
    if done.returncode not in allowed:
        raise LoopError(f"{' '.join(line[1:])}: exit code {done.returncode}\n{done.stderr.strip()}")
    last = done.stdout.strip().rpartition("\n")[2]
    found: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    return found


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is ready."""

    url: str
    token: str

    def bundle(self) -> str:
        """Ask for the id of the bundle that answers now."""
        answer = httpx.get(
            f"{self.url}/reco/default/0",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=_PATIENCE_S,
        )
        answer.raise_for_status()
        return answer.headers["X-Reco-Bundle"]

    def wait_for(self, bundle: str) -> float:
        """Wait until that bundle answers; return how many seconds it took. Raises LoopError."""
        began = time.monotonic()
        while self.bundle() != bundle:
            if time.monotonic() - began > _PATIENCE_S:
                raise LoopError(f"the service did not take up bundle {bundle}")
            time.sleep(_POLL_S)
        return time.monotonic() - began


@contextlib.contextmanager
def serving(artifacts: Path, log: Path, *flags: str, settings: dict[str, str]) -> Iterator[Running]:
    """Run `reco serve` on a free port while the block runs; `settings` are RECO_ variables. What it says goes to `log`.

    One worker, because what it remembers of users is in its memory. Raises LoopError if it doesn't start.
    """
    token = secrets.token_urlsafe(32)
    settings = {
        "RECO_TOKENS": f"loop:{token}",
        "RECO_RELOAD_POLL_S": "0.1",
        # Answers must not depend on how busy the machine is.
        "RECO_BUDGET_MS": "10000",
        "RECO_ADMISSION": "off",
        "RECO_EVENTS_WAIT_MS": "20000",
        **settings,
    }
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [RECO, "serve", "--artifacts", artifacts, "--port", "0", "--workers", "1", *flags],
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**_clean(), **settings},
        )
    try:
        yield Running(_wait_ready(process, log), token)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up and process.poll() is None:
        found = _READY.search(log.read_text("utf-8", errors="replace"))
        if found is not None:
            return found[1]
        time.sleep(_POLL_S)
    said = log.read_text("utf-8", errors="replace").strip().rpartition("\n")[2]
    raise LoopError(f"the service did not start: {said} (all that it said: {log})")


def _clean() -> dict[str, str]:
    """The environment without settings of the service that the caller's shell may hold."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RECO_")}
