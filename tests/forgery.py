"""Bundles changed by someone who can sign: every hash, size, id and seal is right, only the content is wrong."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.bundle.manifest import MANIFEST, seal_manifest

Content = bytes | npt.NDArray[Any]
Edit = Callable[[dict[str, Any]], None]


def forge(
    bundle: Path,
    contents: Mapping[str, Content | None] | None = None,
    edit: Edit | None = None,
    *,
    claim: Mapping[str, Any] | None = None,
) -> Path:
    """Rewrite files of a bundle (None removes one), edit its manifest, sign all of it; returns the new folder.

    An array is written and described as it is; for bytes the manifest keeps its dtype and shape, or takes `claim`.
    """
    document = manifest_of(bundle)
    for name, content in (contents or {}).items():
        path = bundle / name
        if content is None:
            path.unlink()
            del document["files"][name]
            continue
        entry = document["files"].setdefault(name, {"dtype": None, "shape": None})
        if isinstance(content, np.ndarray):
            entry |= {"dtype": content.dtype.str, "shape": list(content.shape)}
        raw = npy(content) if isinstance(content, np.ndarray) else content
        entry |= {"bytes": len(raw), "sha256": sha256(raw).hexdigest(), **(claim or {})}
        path.write_bytes(raw)
    if edit is not None:
        edit(document)
    return sign(bundle, document)


def sign(bundle: Path, document: dict[str, Any]) -> Path:
    """Write a manifest with its id and seal made right, and name the folder after it."""
    raw = seal_manifest(document)
    (bundle / MANIFEST).write_bytes(raw)
    return bundle.rename(bundle.parent / orjson.loads(raw)["bundle_id"])


def manifest_of(bundle: Path) -> dict[str, Any]:
    """The manifest as JSON says it."""
    document: dict[str, Any] = orjson.loads((bundle / MANIFEST).read_bytes())
    return document


def npy(array: npt.NDArray[Any]) -> bytes:
    """Bytes of an array's .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npy_with_header(header: str, body: bytes = b"", *, version: bytes = b"\x01\x00") -> bytes:
    """Bytes of a .npy file whose header is this text, whatever it says."""
    text = header.encode() + b"\n"
    length = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + text + body


def array_of(bundle: Path, name: str) -> npt.NDArray[Any]:
    """A writable copy of a bundle's array."""
    array: npt.NDArray[Any] = np.load(bundle / name, allow_pickle=False)
    return array.copy()
