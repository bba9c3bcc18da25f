"""Where checkpoints are kept, for whom it concerns: readable without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_FOLDER: ContextVar[Path | None] = ContextVar("checkpoint_folder", default=None)


@contextmanager
def checkpoints_in(folder: Path | None) -> Iterator[None]:
    """Keep checkpoints of all towers that are trained inside; None: of none."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def checkpoint_folder() -> Path | None:
    """Give the folder; None where no checkpoints are kept."""
    return _FOLDER.get()
