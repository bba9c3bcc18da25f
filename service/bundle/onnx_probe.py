"""Opens an ONNX tower and asks it, in a process of its own that may die: `python -m service.bundle.onnx_probe FILE …`.

A native library that reads a crafted file may crash, hang or take all memory. Here that costs a child, which the parent
(`probe`) bounds in time and memory, and a refusal.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from service.bundle.onnx_runtime import OFF, open_session
from service.errors import BundleRefused

CPU_SECONDS = 20
WALL_SECONDS = 120.0
"""A machine under load must not have its bundles refused; what burns time is stopped by CPU_SECONDS."""
MEMORY_BYTES = 4 << 30
_REASON = 300
_KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG")
"""Of the environment: the child opens what may be hostile, so it is told no secrets."""


def probe(
    path: Path, name: str, *, inputs: Iterable[str], dim: int, n_tokens: int, n_features: int, length: int
) -> None:
    """Let a child open the tower and ask it what requests may ask. Raises BundleRefused saying how that ended.

    n_tokens: items that a history may name, as 1..n_tokens. n_features: length of a user's features. length: of the
    longest history.
    """
    question = [str(path), ",".join(sorted(inputs)), *map(str, (dim, n_tokens, n_features, length))]
    root = str(Path(__file__).parents[2])
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    command = [sys.executable, "-P", "-m", "service.bundle.onnx_probe", *question]
    try:
        child = subprocess.run(  # noqa: S603 - our own program
            command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS, env={**kept, "PYTHONPATH": root, OFF: "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BundleRefused(name, f"did not answer within {WALL_SECONDS:.0f} seconds") from None
    if child.returncode < 0:
        died = signal.Signals(-child.returncode).name
        what = "used up its time" if died in ("SIGXCPU", "SIGKILL") else "crashed the runtime"
        raise BundleRefused(name, f"{what} when it was tried ({died})")
    lines = child.stdout.decode("utf-8", "replace").splitlines()
    if child.returncode != 0 or not lines:
        raise BundleRefused(name, f"could not be tried (exit code {child.returncode})")
    reason = json.loads(lines[-1])
    if reason is not None:
        raise BundleRefused(name, str(reason))


def fault_of(
    path: Path, inputs: Iterable[str], dim: int, n_tokens: int, n_features: int, length: int
) -> str | None:
    """What is wrong with the tower's answers; None where nothing is."""
    inputs = frozenset(inputs)
    try:
        session = open_session(path.read_bytes())
    except Exception as error:
        return f"the runtime can't open it: {_said(error)}"
    draw = np.random.default_rng(0)
    longest = draw.integers(1, n_tokens + 1, length)
    histories = (
        [[0], [1], [n_tokens], [n_tokens] * length, longest.tolist()] if "history" in inputs else [[0]]
    )
    rows = [np.zeros(n_features), np.ones(n_features)] if "features" in inputs else [np.zeros(0)]
    for history in histories:
        for features in rows:
            given = {
                "history": np.array([history], np.int64),
                "features": features.astype(np.float32)[None],
            }
            try:
                (vector,) = session.run(["vector"], {name: given[name] for name in inputs})
            except Exception as error:
                return f"can't answer a history of {len(history)}: {_said(error)}"
            if getattr(vector, "shape", None) != (1, dim) or vector.dtype != np.float32:
                return f"answers {getattr(vector, 'shape', '?')} {getattr(vector, 'dtype', '')}, not (1, {dim}) float32"
            if not np.isfinite(vector).all():
                return f"answers a history of {len(history)} with values that are not finite"
    return None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:_REASON] or type(error).__name__


def main(arguments: list[str]) -> int:
    """Print the fault, or null, as one line of JSON."""
    path, inputs, *numbers = arguments
    memory = MEMORY_BYTES + 8 * Path(path).stat().st_size
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    fault = fault_of(Path(path), inputs.split(","), *map(int, numbers))
    sys.stdout.write(json.dumps(fault) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
