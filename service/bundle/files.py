"""Files of a bundle: nothing is opened before it is known to be a plain file of the promised size and hash."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest
from service.bundle.values import Values
from service.errors import BundleRefused

_MOST_THREADS = 4


def sha256_of(path: Path, noted: Values | None = None) -> str:
    """Hex sha256 of a file's bytes; `noted` sees its values as they pass by."""
    with path.open("rb") as file:
        if noted is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(file.read(noted.begin))
        block = memoryview(bytearray(noted.step))
        while count := file.readinto(block):
            digest.update(block[:count])
            noted.see(block[:count])
    return digest.hexdigest()


def verify_files(root: Path) -> Manifest:
    """Read the manifest and hold every file against it: presence, kind, size, hash, and nothing extra.

    Raises BundleRefused naming the file and the reason.
    """
    manifest = read_manifest(root)
    verify_hashes(root, manifest, {})
    return manifest


def read_manifest(root: Path) -> Manifest:
    """Read the manifest; every file that it names is there, plain and of its size, and none besides.

    Raises BundleRefused naming the file and the reason.
    """
    _plain_file(root, MANIFEST)
    try:
        with (root / MANIFEST).open("rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleRefused(MANIFEST, f"cannot be read: {error}") from error
    manifest = parse_manifest(raw)
    present = _walk(root)
    for name in sorted(present - set(manifest.files) - {MANIFEST}):
        raise BundleRefused(name, "the manifest does not name this file")
    for name, entry in manifest.files.items():
        if name not in present:
            raise BundleRefused(name, "missing")
        _plain_file(root, name)
        try:
            size = (root / name).stat().st_size
        except OSError as error:
            raise BundleRefused(name, f"cannot be read: {error}") from error
        if size != entry.bytes:
            raise BundleRefused(name, f"{size} bytes, the manifest says {entry.bytes}")
    return manifest


def verify_hashes(root: Path, manifest: Manifest, noted: Mapping[str, Values]) -> None:
    """Hash every file; `noted` sees the values of those it has, whatever becomes of their hashes.

    Raises BundleRefused for the first file, in the manifest's order, that is not the one it names.
    """
    threads = min(_threads(), len(manifest.files))
    if threads <= 1:
        for name, entry in manifest.files.items():
            _verify_hash(root, name, entry, noted.get(name))
        return
    with ThreadPoolExecutor(threads, "hash") as pool:
        # The largest first, so that no thread is left with one at the end.
        begun = {
            name: pool.submit(_verify_hash, root, name, entry, noted.get(name))
            for name, entry in sorted(manifest.files.items(), key=lambda item: -item[1].bytes)
        }
        try:
            for name in manifest.files:
                begun[name].result()
        finally:
            pool.shutdown(cancel_futures=True)


def _threads() -> int:
    """As many as there are processors; one for a thread of less than normal priority.

    Such a one loads beside others that answer, and shall leave them processors, not only time on each.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        return 1
    if hasattr(os, "SCHED_IDLE") and os.sched_getscheduler(0) == os.SCHED_IDLE:
        return 1
    return min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        _MOST_THREADS,
    )


def _verify_hash(root: Path, name: str, entry: FileEntry, values: Values | None) -> None:
    try:
        digest = sha256_of(root / name, values)
    except OSError as error:
        raise BundleRefused(name, f"cannot be read: {error}") from error
    if digest != entry.sha256:
        raise BundleRefused(name, f"sha256 {digest[:12]}…, the manifest says {entry.sha256[:12]}…")


def _plain_file(root: Path, name: str) -> None:
    """Refuse links (of the file or of a folder on the way) and anything that is not a regular file."""
    place = root
    for part in name.split("/"):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            raise BundleRefused(name, "missing") from None
        except (OSError, ValueError) as error:
            raise BundleRefused(name, f"cannot be read: {error}") from error
        if stat.S_ISLNK(mode):
            raise BundleRefused(name, "a symbolic link")
    if not stat.S_ISREG(mode):
        raise BundleRefused(name, "not a regular file")


def _walk(root: Path) -> set[str]:
    found = set()
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        for name in files + [f for f in folders if (here / f).is_symlink()]:
            found.add((here / name).relative_to(root).as_posix())
    return found
