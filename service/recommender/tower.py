"""User towers at request time: a user's vector computed from history and features by an ONNX graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle.onnx_runtime import is_installed, open_session
from service.bundle.tower_file import TowerFile
from service.domain import Source
from service.errors import BundleRefused, StageUnavailable
from service.recommender.user_state import UserState

Vector = npt.NDArray[np.float32]
STAGE = "tower"
"""Named in `degraded` where a tower should have answered and could not."""


class Tower:
    """One open tower. It runs in the caller's thread; threads and forked workers share it.

    In a cosine space (`unit`) what it gives is brought to unit norm.
    """

    def __init__(self, file: TowerFile, *, unit: bool) -> None:
        self._tokens, self._features = file.tokens, file.features
        self._length, self._unit = file.settings.history_length, unit
        self._for_features = file.settings.without_history == "tower" and "features" in file.inputs
        self.reads_history, self._reads_features = "history" in file.inputs, "features" in file.inputs
        n_features = 0 if file.features is None else file.features.shape[1]
        self._nothing_known = np.zeros((1, n_features), np.float32)
        self._session: Any = None
        if is_installed():
            try:
                self._session = open_session(file.path.read_bytes())
            except Exception as error:
                raise BundleRefused(
                    file.name, f"the runtime can't open it: {' '.join(str(error).split())[:200]}"
                ) from error

    @property
    def is_open(self) -> bool:
        """Whether it can be run here; False where onnxruntime is not installed."""
        return self._session is not None

    def vector(self, user: UserState) -> tuple[Vector, Source] | None:
        """The user's vector, float32 (dim,), from their history (`fold_in`) or features alone (`features`).

        None for a user of whom it is told nothing, or only features where those are not its to answer. Raises
        StageUnavailable where there is no runtime, it fails, or its answer is no direction.
        """
        tokens = self._tokens[user.history] if self.reads_history else self._tokens[:0]
        tokens = tokens[tokens > 0][-self._length :]
        source: Source = "fold_in"
        features = self._features_of(user)
        if len(tokens) == 0:
            if features is None or not self._for_features:
                return None
            source = "features"
        return self._run(tokens, features), source

    def _features_of(self, user: UserState) -> npt.NDArray[np.float32] | None:
        if self._features is None or user.row < 0:
            return None
        row: npt.NDArray[np.float32] = self._features[user.row : user.row + 1]
        return row if row.any() else None

    def _run(self, tokens: npt.NDArray[np.int32], features: npt.NDArray[np.float32] | None) -> Vector:
        if self._session is None:
            raise StageUnavailable(STAGE)
        given: dict[str, npt.NDArray[Any]] = {}
        if self.reads_history:
            given["history"] = tokens.astype(np.int64)[None] if len(tokens) else np.zeros((1, 1), np.int64)
        if self._reads_features:
            given["features"] = self._nothing_known if features is None else np.ascontiguousarray(features)
        try:
            vector: Vector = self._session.run(["vector"], given)[0][0]
        except Exception as error:
            raise StageUnavailable(STAGE) from error
        norm = math.sqrt(float(vector @ vector)) if vector.dtype == np.float32 else math.nan
        if not 0.0 < norm < math.inf:
            raise StageUnavailable(STAGE)
        return vector / np.float32(norm) if self._unit else vector
