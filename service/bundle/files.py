"""Files of a bundle: nothing is opened before it is known to be a plain file of the promised size and hash."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from service.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest
from service.errors import BundleRefused


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_files(root: Path) -> Manifest:
    """Read the manifest and hold every file against it: presence, kind, size, hash, and nothing extra.

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
        _verify_file(root, name, entry)
    return manifest


def _verify_file(root: Path, name: str, entry: FileEntry) -> None:
    _plain_file(root, name)
    try:
        size = (root / name).stat().st_size
        if size != entry.bytes:
            raise BundleRefused(name, f"{size} bytes, the manifest says {entry.bytes}")
        digest = sha256_of(root / name)
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
