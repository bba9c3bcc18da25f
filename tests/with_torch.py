"""Torch, for tests that train. `from with_torch import torch` skips the test file where it is not installed.

With CI=true that fails instead. Tests import it before what needs it, as names sort. Torch then keeps to one thread:
on a busy machine two of them wait for each other many times longer than tests take.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

HOW_TO = "no torch: make setup-train"

if importlib.util.find_spec("torch") is None:
    if os.environ.get("CI") == "true":
        pytest.fail(HOW_TO)
    pytest.skip(HOW_TO, allow_module_level=True)

import torch as torch  # noqa: E402, PLC0414 - after the check; said twice, it is exported

torch.set_num_threads(1)
