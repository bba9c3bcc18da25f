"""Whom a listener asks for the next track: a service over HTTP, by its protocol, or a simple rule beside it."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import quote

from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.http import Answer, Connection
from loadtest.simulator.session import Playback


class ServiceFault(Exception):
    """An answer that no listener can go on with; the message has few distinct texts, for counting."""


class Service(Protocol):
    """Answers one listener at a time."""

    async def following(self, user: int, played: Sequence[Playback], at_ms: int) -> int:
        """Report the last of what was played and say what to play next. Raises ServiceFault or HttpFailure."""

    async def ended(self, user: int, played: Sequence[Playback], at_ms: int) -> None:
        """Report the last of what was played: the listener has left. Raises ServiceFault or HttpFailure."""

    async def close(self) -> None:
        """Let go of what is open."""


class Botify:
    """POST /next/{user} and /last/{user} with {"track", "time"}; the answer to the first has the next `track`.

    As the course's client, it does not mind the status of an answer that names a track.
    """

    def __init__(self, connection: Connection, n_tracks: int) -> None:
        self._connection, self._n_tracks = connection, n_tracks

    async def following(self, user: int, played: Sequence[Playback], at_ms: int) -> int:  # noqa: ARG002
        """Report and ask in one."""
        answer = await self._report(f"/next/{user}", played[-1])
        return playable(_json(answer).get("track"), self._n_tracks, answer.status)

    async def ended(self, user: int, played: Sequence[Playback], at_ms: int) -> None:  # noqa: ARG002
        """Report the end."""
        answer = await self._report(f"/last/{user}", played[-1])
        if answer.status != 200:
            raise ServiceFault(f"status {answer.status} to /last")

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()

    async def _report(self, path: str, playback: Playback) -> Answer:
        body = json.dumps({"track": playback.track, "time": playback.time}).encode()
        return await self._connection.ask("POST", path, body)


class Reco:
    """GET /reco/{model}/{user} and POST /v1/events: a `view` for each track with the share heard as its value, and for
    the last of a session `last`. A track left before `view_from` of it was heard is no view but an `impression`, which
    a service does not count among what the user took. A slate is played from its top, what was played in the session
    left out.
    """

    def __init__(
        self, connection: Connection, n_tracks: int, *, model: str, k: int, run: str, view_from: float = 0.0
    ) -> None:
        self._connection, self._n_tracks, self._k, self._run = connection, n_tracks, k, run
        self._view_from = view_from
        self._path = f"/reco/{quote(model, safe='')}/"
        self._shown_in: str | None = None
        self._sent = 0

    async def following(self, user: int, played: Sequence[Playback], at_ms: int) -> int:
        """Report the listen, then ask."""
        if len(played) == 1:
            self._shown_in = None
        await self._report(
            "view" if played[-1].time >= self._view_from else "impression", user, played[-1], at_ms
        )
        answer = await self._connection.ask("GET", f"{self._path}{user}?k={self._k}")
        if answer.status != 200:
            raise ServiceFault(f"status {answer.status} to /reco")
        items = _json(answer).get("items")
        if not isinstance(items, list) or not items:
            raise ServiceFault("no items in the answer")
        self._shown_in = answer.headers.get(b"x-request-id", b"").decode("latin-1") or None
        heard = {playback.track for playback in played}
        return playable(
            next((item for item in items if item not in heard), items[0]), self._n_tracks, answer.status
        )

    async def ended(self, user: int, played: Sequence[Playback], at_ms: int) -> None:
        """Report the end."""
        await self._report("last", user, played[-1], at_ms)

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()

    async def _report(self, kind: str, user: int, playback: Playback, at_ms: int) -> None:
        self._sent += 1
        event = {
            "event_id": f"{self._run}-{self._sent}",
            "type": kind,
            "user_id": user,
            "item_id": playback.track,
            "timestamp_ms": at_ms,
            "value": playback.time,
        }
        if self._shown_in is not None:
            event["request_id"] = self._shown_in
        answer = await self._connection.ask("POST", "/v1/events", json.dumps({"events": [event]}).encode())
        if answer.status != 200:
            raise ServiceFault(f"status {answer.status} to /v1/events")


class AnyTrack:
    """Any track of the catalogue, uniformly, by a stream of its own for each user."""

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        self._catalogue, self._seed = catalogue, seed
        self._chances: dict[int, random.Random] = {}

    async def following(self, user: int, played: Sequence[Playback], at_ms: int) -> int:  # noqa: ARG002
        """Draw."""
        return self.chance_of(user).randrange(len(self._catalogue))

    async def ended(self, user: int, played: Sequence[Playback], at_ms: int) -> None:
        """Nothing to remember."""

    async def close(self) -> None:
        """Nothing to close."""

    def chance_of(self, user: int) -> random.Random:
        """The stream of a user."""
        chance = self._chances.get(user)
        if chance is None:
            chance = self._chances[user] = random.Random(f"{self._seed} {user}")  # noqa: S311 - no secret
        return chance


class StickyArtist(AnyTrack):
    """Another track of the artist just heard, uniformly; any of the artist's where there is only that one."""

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        super().__init__(catalogue, seed)
        self._by_artist: dict[str, list[int]] = defaultdict(list)
        for track, artist in enumerate(catalogue.artists):
            self._by_artist[artist].append(track)

    async def following(self, user: int, played: Sequence[Playback], at_ms: int) -> int:  # noqa: ARG002
        """Draw."""
        previous = played[-1].track
        tracks = self._by_artist[self._catalogue.artists[previous]]
        others = [track for track in tracks if track != previous] or tracks
        return self.chance_of(user).choice(others)


def playable(track: Any, n_tracks: int, status: int) -> int:
    """Check that an answer names a track of the catalogue. Raises ServiceFault."""
    if type(track) is not int:
        raise ServiceFault(f"status {status}, no track" if status != 200 else "no whole number as a track")
    if not 0 <= track < n_tracks:
        raise ServiceFault("a track outside the catalogue")
    return track


def _json(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        raise ServiceFault(f"status {answer.status}, not JSON") from None
    return found if isinstance(found, dict) else {}


def wall_ms() -> int:
    """Unix time, milliseconds."""
    return time.time_ns() // 1_000_000
