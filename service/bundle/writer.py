"""Writes one bundle: an immutable directory named after its content, complete or absent."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.bundle.arrays import write_array
from service.bundle.files import sha256_of, verify_files
from service.bundle.leftovers import DAMAGED, WRITING, hold, remove_leftovers
from service.bundle.manifest import FORMAT_VERSION, MANIFEST, parse_manifest, seal_manifest
from service.errors import BundleRefused


@dataclass(slots=True)
class BundleWriter:
    """Collects files in a hidden folder beside the bundles; `finish` renames it to `<root>/bundles/<bundle_id>`.

    Use as a context manager: leaving it without `finish` removes what was written.
    """

    root: Path
    _folder: Path = field(init=False)
    _held: int = field(init=False)
    _files: dict[str, dict[str, Any]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        bundles = self.root / "bundles"
        bundles.mkdir(parents=True, exist_ok=True)
        remove_leftovers(bundles)
        self._folder = bundles / f"{WRITING}{secrets.token_hex(6)}"
        self._folder.mkdir()
        self._held = hold(self._folder)

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._held)

    def add_array(self, name: str, array: npt.NDArray[Any], *, gaps: bool = False) -> str:
        """Write an array as `<name>.npy`; returns the file's name. Raises ValueError for an unsupported dtype.

        `gaps`: NaN may stand for what is not known.
        """
        array = np.ascontiguousarray(array)
        if array.dtype.kind == "f" and not (np.isfinite(array) | (gaps & np.isnan(array))).all():
            raise ValueError(f"{name}: holds values that are not finite")
        return self._add(
            f"{name}.npy", lambda path: write_array(path, array), array.dtype.str, list(array.shape)
        )

    def add_json(self, name: str, document: Any) -> str:
        """Write a JSON document as `<name>.json`; returns the file's name."""
        raw = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        return self._add(f"{name}.json", lambda path: path.write_bytes(raw))

    def add_index(self, name: str, save: Callable[[str], None]) -> str:
        """Let `save(path)` write an index as `<name>.hnsw`; returns the file's name."""
        return self._add(f"{name}.hnsw", lambda path: save(str(path)))

    def add_file(
        self, file: str, write: Callable[[Path], object], dtype: str | None, shape: list[int] | None
    ) -> str:
        """Let `write(path)` make a file under its full name: one of another bundle, as it stands there."""
        return self._add(file, write, dtype, shape)

    def add_tower(self, name: str, raw: bytes) -> str:
        """Write an ONNX graph as `<name>.onnx`; returns the file's name."""
        return self._add(f"{name}.onnx", lambda path: path.write_bytes(raw))

    def _add(
        self,
        file: str,
        write: Callable[[Path], object],
        dtype: str | None = None,
        shape: list[int] | None = None,
    ) -> str:
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        self._files[file] = {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "dtype": dtype,
            "shape": shape,
        }
        return file

    def finish(self, manifest: Mapping[str, Any]) -> Path:
        """Complete the manifest with files, id and time, make all durable and rename into place.

        A bundle of the same id is the same content and is kept, unless it has been damaged: then this one takes its
        place. Raises BundleRefused if the manifest is not valid.
        """
        document = {**manifest, "format_version": FORMAT_VERSION, "files": self._files}
        document = orjson.loads(orjson.dumps(document))  # the id is taken over what JSON keeps
        document["created_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        raw = seal_manifest(document)
        bundle_id = parse_manifest(raw).bundle_id
        (self._folder / MANIFEST).write_bytes(raw)
        for path in sorted(self._folder.rglob("*")):
            _fsync(path)
        target = self.root / "bundles" / bundle_id
        if target.exists() and not _is_sound(target):
            aside = target.parent / f"{DAMAGED}{secrets.token_hex(6)}"
            target.rename(aside)
            os.utime(aside)  # its age counts from now
        try:
            self._folder.rename(target)
        except OSError:
            if not target.exists():  # else the same content came first
                raise
        _fsync(target.parent)
        return target


def _is_sound(bundle: Path) -> bool:
    try:
        verify_files(bundle)
    except BundleRefused:
        return False
    return True


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
