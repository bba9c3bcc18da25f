"""A day of an audience: who comes when, every session to its end, the same whatever runs beside it.

A session draws from a stream of its own, seeded by (seed, day, number), and the sessions of one user come one after
the other in their order. So what happens depends only on the seed and on what the service answers each user.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.simulator.audience import Listener
from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.http import HttpFailure
from loadtest.simulator.services import Service, ServiceFault, wall_ms
from loadtest.simulator.session import Playback, Session

MS_PER_DAY = 86_400_000
_TRACK_MS = 200_000
"""What the simulated clock takes for a whole track."""
_PAUSE_MS = 1_000
_WHO_COMES, _A_SESSION = 1, 2
"""Ends of seeds: numpy takes [1, 2] and [1, 2, 0] for the same one, so what must differ may not end with a 0."""


@dataclass(frozen=True, slots=True)
class Sitting:
    """A session as it went. latency_s: of each answer to `following`, one fewer than `played`.

    at_ms: Unix time of each report, one a track. fault: why it was broken off, None where the listener left.
    """

    day: int
    number: int
    user: int
    played: tuple[Playback, ...]
    at_ms: tuple[int, ...]
    latency_s: tuple[float, ...]
    fault: str | None = None

    @property
    def time(self) -> float:
        """Tracks' worth of listening, the first track included."""
        return sum(playback.time for playback in self.played)


@dataclass(frozen=True, slots=True)
class Day:
    """A day to come. first_ms: Unix time at which the first simulated day begins; None takes the wall's clock."""

    day: int
    sessions: int
    seed: int
    first_ms: int | None = None

    def visitors(self, n_listeners: int) -> list[int]:
        """Draw the place in the audience of each session's listener, uniformly; the number is the session's."""
        rng = np.random.default_rng([self.seed, self.day, 0, _WHO_COMES])
        places: list[int] = rng.integers(n_listeners, size=self.sessions).tolist()
        return places

    def opens_ms(self, number: int) -> int | None:
        """When a session opens on the simulated clock: spread over the day in the order of their numbers."""
        if self.first_ms is None:
            return None
        return self.first_ms + (self.day - 1) * MS_PER_DAY + number * MS_PER_DAY // self.sessions


def turns(day: Day, n_listeners: int) -> Mapping[int, Sequence[int]]:
    """Numbers of each listener's sessions, by their place in the audience."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for number, place in enumerate(day.visitors(n_listeners)):
        numbers[place].append(number)
    return numbers


async def live_through(
    day: Day,
    audience: Sequence[Listener],
    catalogue: Catalogue,
    mine: Mapping[int, Sequence[int]],
    service: Callable[[int], Service],
    *,
    concurrency: int,
    on_sitting: Callable[[Sitting], None] | None = None,
) -> list[Sitting]:
    """Run the sessions of `mine` (place in the audience -> numbers), so many listeners at a time.

    `service(n)` makes the n-th of `concurrency` connections.
    """
    waiting = iter(mine.items())
    sittings: list[Sitting] = []

    async def serve_one_after_another(n: int) -> None:
        channel = service(n)
        try:
            for place, numbers in waiting:
                free_ms = 0
                for number in numbers:
                    sitting = await sit(day, number, audience[place], catalogue, channel, free_ms)
                    free_ms = sitting.at_ms[-1] + _PAUSE_MS
                    sittings.append(sitting)
                    if on_sitting is not None:
                        on_sitting(sitting)
        finally:
            await channel.close()

    async with asyncio.TaskGroup() as group:
        for n in range(min(concurrency, len(mine))):
            group.create_task(serve_one_after_another(n))
    return sorted(sittings, key=lambda sitting: sitting.number)


async def sit(
    day: Day, number: int, listener: Listener, catalogue: Catalogue, service: Service, free_ms: int = 0
) -> Sitting:
    """Run one session to its end, or to the first answer that is none. It opens no sooner than `free_ms`."""
    session = Session(listener, catalogue, np.random.default_rng([day.seed, day.day, number, _A_SESSION]))
    opens = day.opens_ms(number)
    at_ms = [wall_ms() if opens is None else max(opens, free_ms)]
    latency_s: list[float] = []
    fault = None
    try:
        while not session.over:
            asked = time.perf_counter()
            track = await service.following(listener.user, session.played, at_ms[-1])
            latency_s.append(time.perf_counter() - asked)
            playback = session.listen(track)
            heard_ms = _PAUSE_MS + round(playback.time * _TRACK_MS)
            at_ms.append(wall_ms() if opens is None else at_ms[-1] + heard_ms)
        await service.ended(listener.user, session.played, at_ms[-1])
    except ServiceFault as error:
        fault = str(error)
    except HttpFailure as error:
        fault = f"no answer: {error}"
    return Sitting(
        day.day, number, listener.user, tuple(session.played), tuple(at_ms), tuple(latency_s), fault
    )
