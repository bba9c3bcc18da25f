"""The user tower beside a model's vectors: what its entry says, and whether the file keeps to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.bundle.manifest import MANIFEST, ModelEntry
from service.bundle.onnx_file import check_onnx_file
from service.bundle.onnx_probe import probe
from service.bundle.onnx_runtime import is_installed
from service.errors import BundleRefused

TOWER_ROLES = frozenset({"tower", "tower_tokens", "user_features"})
MAX_HISTORY = 1_000


class TowerSettings(BaseModel):
    """`parameters["tower"]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    history_length: Annotated[int, Field(ge=1, le=MAX_HISTORY)]
    """Most items of a history that the tower reads: the latest."""
    features: tuple[str, ...] = ()
    """Names of the columns of `user_features`, for people."""
    without_history: Literal["tower", "popular"] = "tower"
    """Who answers a user of whom only features are known: what was better on held-out users."""


@dataclass(frozen=True, slots=True)
class TowerFile:
    """A tower that was tried, if a runtime is here, and found in order. `tokens`: int32 (n_items,), what an item is
    called in its `history`, 0 for one it doesn't know. `features`: float32 (n_users, n), zeros where nothing is known;
    None where it reads none."""

    path: Path
    name: str
    inputs: frozenset[str]
    settings: TowerSettings
    tokens: npt.NDArray[np.int32]
    features: npt.NDArray[np.float32] | None
    dim: int


def read_tower(
    path: Path, name: str, model: str, entry: ModelEntry, arrays: Mapping[str, npt.NDArray[Any]]
) -> TowerFile:
    """Check a tower's settings, arrays and file, and try it in a process of its own. Raises BundleRefused.

    Without onnxruntime it is not tried: it won't be run either.
    """
    try:
        settings = TowerSettings.model_validate(entry.parameters.get("tower"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("parameters", "tower", *first["loc"])))
        raise BundleRefused(MANIFEST, f"models.{model}.{place}: {first['msg']}") from error
    tokens, features = arrays["tower_tokens"], arrays.get("user_features")
    n_tokens = int(tokens.max(initial=0))
    if int(tokens.min(initial=0)) < 0 or n_tokens == 0:
        raise BundleRefused(entry.files["tower_tokens"], "a token is below 0, or no item has one")
    inputs = check_onnx_file(path, name)
    if ("features" in inputs) != (features is not None):
        raise BundleRefused(name, "a tower that reads features and user_features go together")
    if settings.features and (features is None or len(settings.features) != features.shape[1]):
        raise BundleRefused(MANIFEST, f"models.{model}.parameters.tower.features: a name for each column")
    assert entry.dim is not None  # the reader refuses a factors model without it
    if is_installed():
        probe(
            path, name, inputs=inputs, dim=entry.dim, n_tokens=n_tokens,
            n_features=0 if features is None else features.shape[1], length=settings.history_length,
        )  # fmt: skip
    return TowerFile(path, name, inputs, settings, tokens, features, entry.dim)
