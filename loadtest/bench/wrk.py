"""The closed-loop generator: wrk, which is far faster than anything it is to measure here."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.errors import BenchError
from loadtest.bench.servers import pinned

HOW_TO = "make bench needs wrk: apt-get install wrk, or brew install wrk"
_SCRIPT = Path(__file__).with_name("random_users.lua")


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of one rung came to. `latencies`: percentile -> µs."""

    rps: float
    latencies: dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask: `lines` is a file of paths, or for POST of bodies to `path`."""

    lines: Path
    method: str = "GET"
    path: str = "-"


def find_wrk() -> str:
    """Where wrk is. Raises BenchError with the way to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise BenchError(HOW_TO)
    return found


def ask(
    port: int, target: Target, token: str, *, connections: int, seconds: float, seed: int, core: int | None
) -> Round:
    """Ask as fast as it answers. Raises BenchError if any answer was an error.

    wrk takes whole seconds only, so a shorter round is ended by `timeout`'s signal, at which it still reports.
    """
    words = [find_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(_SCRIPT)]
    words += ["-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json"]
    words += [f"http://127.0.0.1:{port}", "--", str(target.lines), target.method, target.path, str(seed)]
    with pinned(core):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - wrk
    try:
        out, err = process.communicate(timeout=seconds + 30 if seconds >= 1 else seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(2)
        out, err = process.communicate(timeout=30)
    if process.returncode != 0:
        raise BenchError(f"wrk: {err.decode(errors='replace')}")
    found = json.loads(out.decode().strip().splitlines()[-1])
    if found["errors"] or not found["requests"]:
        raise BenchError(
            f"port {port}: {found['errors']} errors ({found['kinds']}) in {found['requests']} requests"
        )
    return Round(found["requests"] / found["us"] * 1e6, found["latencies"])
