"""A person in the recommender's place, at the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.services import ServiceFault
from loadtest.simulator.session import Playback


class Console:
    """Shows what a listener heard and reads the next track's number; questions go to stderr."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def following(self, user: int, played: Sequence[Playback], at_ms: int) -> int:  # noqa: ARG002
        """Ask until a track of the catalogue is named. Raises ServiceFault when the input ends."""
        self._show(user, played[-1])
        while True:
            self._say(f"next track, 0 to {len(self._catalogue) - 1}: ", end="")
            line = await asyncio.to_thread(sys.stdin.readline)
            if not line:
                raise ServiceFault("the input ended")
            if line.strip().isascii() and line.strip().isdigit() and int(line) < len(self._catalogue):
                return int(line)
            self._say(f"{line.strip()!r} is no track")

    async def ended(self, user: int, played: Sequence[Playback], at_ms: int) -> None:  # noqa: ARG002
        """Show the end."""
        self._show(user, played[-1])
        time = sum(playback.time for playback in played)
        self._say(f"user {user} left after {len(played)} tracks, {time:.2f} of them heard")

    async def close(self) -> None:
        """Nothing to close."""

    def _show(self, user: int, playback: Playback) -> None:
        artist, title = self._catalogue.artists[playback.track], self._catalogue.titles[playback.track]
        self._say(f"user {user} heard {playback.time:.2f} of {playback.track}: {artist} - {title}")

    @staticmethod
    def _say(text: str, end: str = "\n") -> None:
        sys.stderr.write(text + end)
        sys.stderr.flush()
