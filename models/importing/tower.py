"""A user's own ONNX tower: checked, tried, and asked for the vectors of the users it will answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset
from models.history import unique_history
from models.importing.id_lists import IdList
from models.importing.vectors import VectorTable
from service.bundle.onnx_file import MAX_BYTES, Malformed, check_onnx
from service.bundle.onnx_probe import probe
from service.bundle.onnx_runtime import is_installed, open_session
from service.bundle.tower_file import MAX_HISTORY
from service.errors import BundleRefused, DataError, InputError

Vectors = npt.NDArray[np.float32]
_ALIKE = 0.01
_COMPARED = 256


@dataclass(frozen=True, slots=True)
class GivenTower:
    """The file, and the features it reads: a row a user of `feature_ids`, or None."""

    file: Path
    raw: bytes
    inputs: frozenset[str]
    history_length: int
    features: VectorTable | None
    feature_ids: IdList | None


def read_tower_file(
    path: Path,
    history_length: int,
    features: tuple[VectorTable, IdList] | None,
    *,
    items: VectorTable,
) -> GivenTower:
    """Check a tower against the item vectors it goes with, and try it in a process of its own.

    Its `history` names items as rows of `items` plus one. Raises InputError where there is no such file or no
    onnxruntime; DataError saying what is wrong with it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not 1 <= history_length <= MAX_HISTORY:
        raise InputError(f"--tower-history {history_length}: 1 to {MAX_HISTORY} items")
    if not is_installed():
        raise InputError(
            "--tower: onnxruntime is not installed (pip install 'reco-service[tower]'), so it can't be tried"
        )
    if path.stat().st_size > MAX_BYTES:
        raise DataError(path, f"larger than {MAX_BYTES} bytes")
    raw = path.read_bytes()
    try:
        inputs = check_onnx(raw)
    except Malformed as error:
        raise DataError(path, str(error)) from error
    if "features" in inputs and features is None:
        raise InputError(f"{path}: the tower reads features: give them with --user-features")
    if "features" not in inputs and features is not None:
        raise InputError(f"{path}: the tower reads no features; leave --user-features out")
    values, ids = (None, None) if features is None else features
    try:
        probe(
            path, str(path), inputs=inputs, dim=items.values.shape[1], n_tokens=len(items.values),
            n_features=0 if values is None else values.values.shape[1], length=history_length,
        )  # fmt: skip
    except BundleRefused as error:
        raise DataError(path, error.reason) from error
    return GivenTower(path, raw, inputs, history_length, values, ids)


def vectors_by_tower(
    tower: GivenTower,
    dataset: Dataset,
    item_rows: npt.NDArray[np.int32],
    features: Vectors | None,
    users: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], Vectors]:
    """User rows, ascending, and their vectors: of all whose history the tower reads, or of `users` among them.

    item_rows: catalogue rows of the item vectors, in the file's order. features: float32 (n_users, n).
    Users whose vector would be zero are left out: who has features alone is computed when they ask, and so disclosed.
    """
    session = open_session(tower.raw)
    rows, vectors = [], []
    for row, history in _histories(tower, dataset, item_rows, users):
        given: dict[str, npt.NDArray[np.int64] | Vectors] = {"history": history[None]}
        if features is not None:
            given["features"] = features[row : row + 1]
        vector = session.run(["vector"], given)[0][0]
        if not np.isfinite(vector).all():
            user = dataset.user_ids.take(np.array([row]))[0]
            raise DataError(tower.file, f"gives user {user!r} a vector that is not finite")
        if vector.any():
            rows.append(row)
            vectors.append(vector)
    dim = vectors[0].shape[0] if vectors else 0
    return np.array(rows, np.int32), np.array(vectors, np.float32).reshape(len(rows), dim)


def refuse_unless_reproduced(
    tower: GivenTower, dataset: Dataset, asked: Vectors, user_rows: npt.NDArray[np.int32],
    item_rows: npt.NDArray[np.int32], features: Vectors | None, *, file: Path, unit: bool,
) -> None:  # fmt: skip
    """Hold the tower against the vectors given for users. Raises DataError naming one it gives another vector.

    A tower of features alone is not: it answers those who have nothing else.
    """
    sample = user_rows[np.linspace(0, len(user_rows) - 1, min(_COMPARED, len(user_rows))).astype(int)]
    rows, found = vectors_by_tower(tower, dataset, item_rows, features, np.unique(sample))
    if len(rows) == 0:
        return
    given = asked[np.searchsorted(user_rows, rows)].astype(np.float64)
    made = found.astype(np.float64)
    if unit:
        given, made = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (given, made))
    apart = np.linalg.norm(given - made, axis=1) / np.linalg.norm(given, axis=1)
    worst = int(np.argmax(apart))
    if apart[worst] > _ALIKE:
        user = dataset.user_ids.take(rows[worst : worst + 1])[0]
        raise DataError(
            tower.file,
            f"from the last {tower.history_length} items of the history and the features it gives user {user!r} "
            f"another vector than {file} ({apart[worst]:.0%} apart); leave --user-vectors out and it computes them",
        )


def _histories(
    tower: GivenTower,
    dataset: Dataset,
    item_rows: npt.NDArray[np.int32],
    users: npt.NDArray[np.int32] | None,
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Users with a history that the tower reads, and what it is to it."""
    if "history" not in tower.inputs:
        return
    tokens = np.zeros(dataset.n_items, np.int64)
    tokens[item_rows] = np.arange(1, len(item_rows) + 1)
    indptr, items = unique_history(dataset)
    for row in range(dataset.n_users) if users is None else users.tolist():
        history = tokens[items[indptr[row] : indptr[row + 1]]]
        history = history[history > 0][-tower.history_length :]
        if len(history):
            yield row, history
