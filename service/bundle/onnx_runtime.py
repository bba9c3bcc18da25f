"""The one door to onnxruntime: imported on first use, silent, without threads and without telemetry.

Release 1.29 and later send usage figures over the network from a thread of their own, unless ORT_DISABLE_TELEMETRY is
set before the import (microsoft/onnxruntime#27379). A service does not phone home, and a process that forks has no
threads; so nothing else imports it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

OFF = "ORT_DISABLE_TELEMETRY"
_FATAL = 4


def is_installed() -> bool:
    """Whether towers can be run here."""
    return importlib.util.find_spec("onnxruntime") is not None


def open_session(raw: bytes) -> Any:
    """An inference session that runs in the caller's thread and starts none, so it survives a fork; it is shared by
    threads. Raises whatever the runtime raises for a model it can't run."""
    os.environ[OFF] = "1"
    onnxruntime: Any = importlib.import_module("onnxruntime")  # an extra of the serving image, and 60 MB
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a plan for each length of history would pile up
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
