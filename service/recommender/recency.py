"""Recency: a model that was trained on the order of events reads a history by it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import MANIFEST
from service.errors import BundleRefused

NEGLIGIBLE = 2.0**-24
"""What float32 can't tell from nothing beside 1."""


def half_life_in(parameters: Mapping[str, Any], key: str) -> float | None:
    """Read a half-life, in items, or None where there is none. Raises BundleRefused unless above 0 and finite."""
    value = parameters.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise BundleRefused(MANIFEST, f"{key} must be a number above 0: {value!r:.40}")
    return float(value)


def fading(n: int, half_life: float, *, least: float = 0.0) -> npt.NDArray[np.float64]:
    """Weigh a history of n items, oldest first: float64 (n,), 1 for the newest, half for every `half_life` after it."""
    weights: npt.NDArray[np.float64] = np.maximum(np.exp2(-np.arange(n - 1, -1, -1) / half_life), least)
    return weights


def telling(half_life: float) -> int:
    """How many of the newest items tell anything: those that weigh more than NEGLIGIBLE."""
    return max(1, min(math.ceil(-math.log2(NEGLIGIBLE) * half_life), 1 << 20))
