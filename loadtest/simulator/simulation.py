"""Days of an audience against one service, in one process or several."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from loadtest.simulator.audience import Listener
from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.console import Console
from loadtest.simulator.days import Day, Sitting, live_through, turns
from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.http import Connection, HttpFailure
from loadtest.simulator.services import AnyTrack, Botify, Reco, Service, StickyArtist

AGENTS = ("random", "sticky", "console")
PROTOCOLS = ("botify", "reco")


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask: the service at `url` by its protocol, or one of AGENTS. The rest is of the reco protocol."""

    url: str | None = None
    protocol: str = "botify"
    agent: str | None = None
    model: str = "default"
    k: int = 10
    view_from: float = 0.0
    token: str | None = None
    timeout_s: float = 30.0

    def connection(self) -> Connection:
        """Prepare a connection. Raises SimulatorError for an address that is none."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else None
        return Connection(self.url or "", timeout_s=self.timeout_s, headers=headers)

    def service(self, catalogue: Catalogue, day: Day, run: str) -> Service:
        """Make one channel to it."""
        if self.agent == "console":
            return Console(catalogue)
        if self.agent is not None:
            rule = AnyTrack if self.agent == "random" else StickyArtist
            return rule(catalogue, day.seed * 1_000_003 + day.day)
        if self.protocol == "botify":
            return Botify(self.connection(), len(catalogue))
        return Reco(
            self.connection(), len(catalogue), model=self.model, k=self.k, run=run, view_from=self.view_from
        )


async def protocol_of(target: Target) -> str:
    """Ask a service what it speaks: botify says so at `/`. Raises SimulatorError where nobody answers."""
    connection = target.connection()
    try:
        answer = await connection.ask("GET", "/")
    except HttpFailure as error:
        raise SimulatorError(f"--url {target.url}: nobody answers: {error}") from error
    finally:
        await connection.close()
    try:
        message = json.loads(answer.body)["message"]
    except (ValueError, KeyError, TypeError):
        return "reco"
    return "botify" if answer.status == 200 and "botify" in str(message) else "reco"


def live(
    day: Day,
    audience: Sequence[Listener],
    catalogue: Catalogue,
    target: Target,
    *,
    concurrency: int,
    processes: int = 1,
    on_sitting: Callable[[Sitting], None] | None = None,
) -> list[Sitting]:
    """Run a day and return its sessions by number; `concurrency` listeners at a time in each process.

    A listener stays with one process, so the number of processes changes no result.
    """
    mine = turns(day, len(audience))
    if target.agent == "console":
        concurrency = processes = 1
    if processes == 1:
        return _share(day, audience, catalogue, target, mine, concurrency, on_sitting)
    shares = [
        {place: numbers for place, numbers in mine.items() if place % processes == n}
        for n in range(processes)
    ]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = [
            pool.submit(_share, day, audience, catalogue, target, share, concurrency) for share in shares
        ]
        sittings = [sitting for future in running for sitting in future.result()]
    for sitting in sittings if on_sitting is not None else ():
        on_sitting(sitting)  # type: ignore[misc]  # the loop is empty without one
    return sorted(sittings, key=lambda sitting: sitting.number)


def _share(
    day: Day,
    audience: Sequence[Listener],
    catalogue: Catalogue,
    target: Target,
    mine: Mapping[int, Sequence[int]],
    concurrency: int,
    on_sitting: Callable[[Sitting], None] | None = None,
) -> list[Sitting]:
    run = uuid.uuid4().hex

    def service(n: int) -> Service:
        return target.service(catalogue, day, f"{run}-{n}")

    return asyncio.run(
        live_through(day, audience, catalogue, mine, service, concurrency=concurrency, on_sitting=on_sitting)
    )
