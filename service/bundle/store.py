"""The artifacts folder: bundles by id, and one pointer that says which of them serves."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from service.bundle.files import verify_files
from service.bundle.manifest import MANIFEST
from service.errors import BundleRefused, InputError

POINTER = "current.json"


@dataclass(frozen=True, slots=True)
class Published:
    """What the pointer says. `history`: ids published before, newest last."""

    bundle_id: str
    published_at: str
    history: tuple[str, ...]


class ArtifactStore:
    """`<root>/bundles/<bundle_id>/…` and `<root>/current.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bundles_dir = root / "bundles"
        self.pointer = root / POINTER

    def list(self) -> list[str]:
        """Ids of the complete bundles, oldest first."""
        if not self.bundles_dir.is_dir():
            return []
        found = [
            d for d in self.bundles_dir.iterdir() if not d.name.startswith(".") and (d / MANIFEST).is_file()
        ]
        return [d.name for d in sorted(found, key=lambda d: ((d / MANIFEST).stat().st_mtime_ns, d.name))]

    def path_of(self, bundle_id: str) -> Path:
        """Folder of a bundle. Raises InputError if there is none of that id."""
        if bundle_id not in self.list():
            known = ", ".join(self.list()[-5:]) or "none"
            raise InputError(f"no bundle {bundle_id!r} in {self.root} (newest: {known})")
        return self.bundles_dir / bundle_id

    def published(self) -> Published:
        """Read the pointer. Raises InputError if nothing is published or the pointer is damaged."""
        try:
            document = orjson.loads(self.pointer.read_bytes())
            return Published(
                str(document["bundle_id"]),
                str(document["published_at"]),
                tuple(map(str, document["history"])),
            )
        except FileNotFoundError:
            raise InputError(
                f"nothing is published in {self.root}: run 'reco build --data … --out {self.root}'"
            ) from None
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.pointer} is damaged ({error}): run 'reco bundle publish' again"
            ) from error

    def current(self) -> Path:
        """Folder of the published bundle. Raises InputError if nothing is published."""
        bundle_id = self.published().bundle_id
        if bundle_id not in self.list():
            raise BundleRefused(POINTER, f"points to {bundle_id!r}, which is not in {self.bundles_dir}")
        return self.bundles_dir / bundle_id

    def publish(self, bundle_id: str) -> None:
        """Verify a bundle's files, then point to it: one atomic rename. Raises InputError or BundleRefused."""
        path = self.path_of(bundle_id)
        manifest = verify_files(path)
        if manifest.bundle_id != bundle_id:
            raise BundleRefused(
                MANIFEST, f"bundle_id is {manifest.bundle_id}, the folder is called {bundle_id}"
            )
        history: tuple[str, ...] = ()
        with suppress(InputError):  # nothing published yet, or a damaged pointer, which this one replaces
            before = self.published()
            history = before.history if before.bundle_id == bundle_id else (*before.history, before.bundle_id)
        self._point(bundle_id, history)

    def rollback(self) -> str:
        """Point to the bundle published before this one; returns its id. Raises InputError if there is none."""
        history = self.published().history
        while history:
            *rest, previous = history
            history = tuple(rest)
            if previous in self.list():
                verify_files(self.bundles_dir / previous)
                self._point(previous, history)
                return previous
        raise InputError(f"no bundle was published before this one in {self.root}")

    def _point(self, bundle_id: str, history: tuple[str, ...]) -> None:
        document = {
            "bundle_id": bundle_id,
            "published_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "history": list(history[-50:]),
        }
        draft = self.root / f".{POINTER}.{secrets.token_hex(4)}"
        with draft.open("wb") as file:
            file.write(orjson.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.pointer)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
