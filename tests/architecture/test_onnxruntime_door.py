"""onnxruntime has one door: imported anywhere else it would report usage over the network and start a thread."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = re.compile(r"import onnxruntime|from onnxruntime|import_module\(\"onnxruntime")


def test_nothing_else_imports_it() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for room in ("service", "models", "loadtest")
        for path in (ROOT / room).rglob("*.py")
        if IMPORTS.search(path.read_text())
    ]
    assert found == ["service/bundle/onnx_runtime.py"]


def test_an_open_session_starts_no_thread() -> None:
    program = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
        "sys.path.insert(0, 'tests')\n"
        "import numpy as np, onnx_files\n"
        "from service.bundle.onnx_runtime import open_session\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "open_session(onnx_files.tower(np.ones((3, 2), np.float32))).run(['vector'], {'history': np.array([[1]])})\n"
        "print(before, len(os.listdir('/proc/self/task')))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    before, after = ran.stdout.split()
    assert before == after
