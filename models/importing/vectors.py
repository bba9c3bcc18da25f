"""Vectors as people keep them: .npy, .npz, implicit's own .npz, safetensors, Parquet. Told apart by content."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors import SafetensorError, safe_open

from models.data.tables import PARQUET_MAGIC, column_names, naming, scan_table
from service.bundle.reader import MAX_NORM
from service.errors import DataError, InputError

Owner = Literal["item", "user"]
MAX_DIM = 4096
NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_KNOWN = ".npy, .npz (implicit's too), .safetensors, Parquet"


@dataclass(frozen=True, slots=True)
class VectorTable:
    """values: float32 (n, dim), finite. ids: the id column that stood beside them (Parquet), or None.

    `columns` names the dimensions for messages. `fold_in`: ALS's regularization and alpha, where the file has them.
    """

    file: Path
    values: npt.NDArray[np.float32]
    ids: pl.Series | None
    columns: tuple[str, ...]
    fold_in: Mapping[str, float] | None = None


def read_vectors(
    path: Path, owner: Owner, *, tensor: str | None = None, id_column: str | None = None
) -> VectorTable:
    """Read one vector a row. `tensor`: the array's name (.npz, safetensors) or the list column's (Parquet).

    Raises InputError where there is no such file; DataError naming row and column for what is no finite matrix of
    real numbers, or where several arrays could be meant.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        begins = file.read(6)
    if begins[:4] == PARQUET_MAGIC:
        return _parquet(path, owner, tensor, id_column)
    fold_in = None
    if begins == NPY_MAGIC:
        raw = _npy(path)
    elif begins[:4] == ZIP_MAGIC:
        raw, fold_in = _npz(path, owner, tensor)
    elif path.suffix == ".safetensors":
        raw = _safetensors(path, tensor)
    else:
        raise DataError(path, f"not a file of vectors; known are {_KNOWN}")
    columns = tuple(str(i) for i in range(raw.shape[1] if raw.ndim == 2 else 0))
    return VectorTable(path, _checked(path, raw, columns), None, columns, fold_in)


def has_users(path: Path) -> bool:
    """Whether this is a model that implicit saved: vectors of users beside those of items."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"user_factors.npy", "item_factors.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _npy(path: Path) -> npt.NDArray[Any]:
    try:
        raw: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(path, f"not a plain numpy array: {error}") from error
    return raw


def _npz(path: Path, owner: Owner, tensor: str | None) -> tuple[npt.NDArray[Any], dict[str, float] | None]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(path, f"not an archive of plain numpy arrays: {error}") from error
    if tensor is None and has_users(path):
        tensor = f"{owner}_factors"
    chosen = _chosen(path, {name: array.shape for name, array in arrays.items()}, tensor)
    fold_in = None
    if {"regularization", "alpha"} <= set(arrays):  # AlternatingLeastSquares; its other models have no alpha
        fold_in = {name: float(arrays[name]) for name in ("regularization", "alpha")}
    return arrays[chosen], fold_in


def _safetensors(path: Path, tensor: str | None) -> npt.NDArray[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
            raw: npt.NDArray[Any] = file.get_tensor(_chosen(path, shapes, tensor))
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise DataError(path, f"cannot be read as safetensors: {error}") from error
    return raw


def _chosen(path: Path, shapes: Mapping[str, tuple[int, ...]], tensor: str | None) -> str:
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "nothing"
    if tensor is not None:
        if tensor not in shapes:
            raise DataError(path, f"no array {tensor!r} in it; it holds {found}")
        return tensor
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) != 1:
        raise DataError(
            path, f"say which array holds the vectors (--item-tensor, --user-tensor): it holds {found}"
        )
    return matrices[0]


def _parquet(path: Path, owner: Owner, tensor: str | None, id_column: str | None) -> VectorTable:
    lazy = scan_table(path)
    found = column_names(lazy, path)
    with naming(path):
        frame = lazy.collect()
    for name in (tensor, id_column):
        if name is not None and name not in found:
            raise DataError(path, f"no column {name!r}; the columns are {', '.join(found)}")
    if id_column is None:
        id_column = next((name for name in (f"{owner}_id", owner, "id") if name in found), None)
    nested = [name for name in found if isinstance(frame.schema[name], (pl.List, pl.Array))]
    if tensor is None and len(nested) > 1:
        raise DataError(path, f"say which column holds the vectors (--{owner}-tensor): {', '.join(nested)}")
    if tensor is not None or nested:
        column = tensor or nested[0]
        raw = _stacked(path, frame[column])
        columns = tuple(f"{column}[{i}]" for i in range(raw.shape[1]))
    else:
        columns = tuple(name for name in found if name != id_column)
        for name in columns:
            if not frame.schema[name].is_numeric():
                raise DataError(path, f"holds {frame.schema[name]}, not numbers", column=name)
        raw = (
            np.column_stack([_plain(path, frame[name]) for name in columns]) if columns else np.empty((0, 0))
        )
    return VectorTable(
        path, _checked(path, raw, columns), None if id_column is None else frame[id_column], columns
    )


def _stacked(path: Path, column: pl.Series) -> npt.NDArray[Any]:
    if isinstance(column.dtype, pl.Array):
        column = column.cast(pl.List(column.dtype.inner))
    if not isinstance(column.dtype, pl.List) or not column.dtype.inner.is_numeric():
        raise DataError(path, f"holds {column.dtype}, not lists of numbers", column=column.name)
    lengths = column.list.len()
    if lengths.null_count():
        raise DataError(path, "no vector", row=(lengths.is_null().arg_max() or 0) + 1, column=column.name)
    dim = int(lengths[0]) if len(lengths) else 0
    if (uneven := lengths != dim).any():
        at = uneven.arg_max() or 0
        reason = f"{lengths[at]} numbers where the first row has {dim}"
        raise DataError(path, reason, row=at + 1, column=column.name)
    if dim == 0:
        return np.empty((0, 0))
    flat = column.explode()
    if flat.null_count():
        at = flat.is_null().arg_max() or 0
        raise DataError(path, "missing number", row=at // dim + 1, column=f"{column.name}[{at % dim}]")
    return flat.to_numpy().reshape(-1, dim)


def _plain(path: Path, column: pl.Series) -> npt.NDArray[Any]:
    if column.null_count():
        raise DataError(path, "missing number", row=(column.is_null().arg_max() or 0) + 1, column=column.name)
    return column.to_numpy()


def _checked(path: Path, raw: npt.NDArray[Any], columns: tuple[str, ...]) -> npt.NDArray[np.float32]:
    if raw.ndim != 2 or 0 in raw.shape:
        raise DataError(path, f"vectors are rows of a matrix; the shape is {list(raw.shape)}")
    if raw.dtype.kind not in "fiu":
        raise DataError(path, f"holds {raw.dtype}, not real numbers")
    if raw.shape[1] > MAX_DIM:
        raise DataError(path, f"vectors of {raw.shape[1]} numbers; at most {MAX_DIM} can be served")
    finite = np.isfinite(raw) if raw.dtype.kind == "f" else None
    if finite is not None and not finite.all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise DataError(
            path, "not a finite number", row=row + 1, column=columns[column], value=float(raw[row, column])
        )
    norms = np.sqrt(np.einsum("nd,nd->n", raw, raw, dtype=np.float64))
    if not (norms < MAX_NORM).all():
        row = int(np.argmax(norms))
        raise DataError(
            path, f"a vector must be shorter than {MAX_NORM:g}", row=row + 1, value=float(norms[row])
        )
    return np.ascontiguousarray(raw, np.float32)


def is_zero(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Tell the vectors, bool (n,), whose norm is zero in float32: they point nowhere."""
    zero: npt.NDArray[np.bool_] = np.einsum("nd,nd->n", values, values) == 0
    return zero
