"""Progress of long steps, for people, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, track
from rich.status import Status

T = TypeVar("T")

_WIDTH_OF_LOGS = 150


def console_of_people() -> Console:
    """Standard error; where that is no terminal, wide enough that a log keeps whole tables."""
    console = Console(stderr=True)
    return console if console.is_terminal else Console(stderr=True, width=_WIDTH_OF_LOGS)


CONSOLE = console_of_people()
"""Where tables and bars go; standard output is for results."""


def ticking(steps: Iterable[T], label: str, shown: bool) -> Iterator[T]:
    """Walk over steps with a bar; without one where it is not wanted or nobody is looking at a terminal."""
    if not shown or not CONSOLE.is_terminal:
        yield from steps
        return
    total = len(steps) if isinstance(steps, Sized) else None
    yield from track(steps, label, total=total, console=CONSOLE, transient=True)


@contextmanager
def advancing(label: str, total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Give a function that moves a bar on by one step, for loops that someone else runs."""
    if not shown or not CONSOLE.is_terminal:
        yield lambda: None
        return
    with Progress(console=CONSOLE, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


class Ticker:
    """Counts steps whose number nobody knows beforehand; shown on a terminal only."""

    def __init__(self, what: str) -> None:
        self._what, self._count = what, 0
        self._status: Status | None = None

    def __enter__(self) -> Ticker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def tick(self, label: str) -> None:
        """Count one more, under a label."""
        self._count += 1
        if not CONSOLE.is_terminal:
            return
        if self._status is None:
            self._status = CONSOLE.status("")
            self._status.start()
        self._status.update(f"{label} ({self._count} {self._what})")
