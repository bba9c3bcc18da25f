"""Named steps of a long run: shown while they run, timed under the same names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from models.progress import CONSOLE


class Steps:
    """`seconds`: what each step took, in the order they ran; a step entered again adds up."""

    def __init__(self, *, shown: bool = True) -> None:
        self.seconds: dict[str, float] = {}
        self._shown = shown

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Time a step and say that it runs."""
        if self._shown:
            CONSOLE.print(f"[bold]{name:<9}[/] {what}", highlight=False)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def rounded(self) -> dict[str, float]:
        """Seconds to two decimals, and their `total`."""
        rounded = {name: round(seconds, 2) for name, seconds in self.seconds.items()}
        return {**rounded, "total": round(sum(self.seconds.values()), 2)}
