"""Folders that a killed build left among the bundles, and damaged bundles that were put aside: removed once safe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path

WRITING, DAMAGED = ".writing-", ".damaged-"
_WRITING_S = 3600.0
"""Younger than this a folder is left alone even if nobody holds it: its writer may be about to."""
_DAMAGED_S = 7 * 86_400.0
"""So long a damaged bundle is kept for whoever wants to know what became of it."""


def hold(folder: Path) -> int:
    """Lock a folder for as long as it is written to; returns the descriptor that holds it. A process's end lets go."""
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # a file system without locks: age alone protects it
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def remove_leftovers(bundles: Path, now: float | None = None) -> list[str]:
    """Remove what nobody holds and is old enough; returns the names. `now`: Unix time in seconds.

    What can't be removed (another's, a file system that forbids it) is left. A service that still maps files of a
    folder keeps them: the system frees them when the last map goes.
    """
    now = time.time() if now is None else now
    removed = []
    for prefix, least in ((WRITING, _WRITING_S), (DAMAGED, _DAMAGED_S)):
        for folder in bundles.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                if now - folder.lstat().st_mtime >= least and folder.is_dir() and not folder.is_symlink():
                    descriptor = os.open(folder, os.O_RDONLY)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder)
                        removed.append(folder.name)
                    finally:
                        os.close(descriptor)
    return removed
