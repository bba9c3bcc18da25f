"""What is sent and when: requests as bytes, drawn from a scenario, and the instants at which they are due."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from loadtest.scenario import Request, Scenario

Arrivals = Literal["constant", "poisson"]


@dataclass(frozen=True, slots=True)
class Shot:
    """One request ready to be sent."""

    request: Request
    raw: bytes


def draw_shots(
    scenario: Scenario, count: int, host: str, *, close: bool = False, extra: Mapping[str, str] | None = None
) -> list[Shot]:
    """Draw requests. `host`: for the Host header. `close`: each asks for its connection to be its own."""
    headers = {
        "Host": host,
        **scenario.headers,
        **(extra or {}),
        **({"Connection": "close"} if close else {}),
    }
    rest = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    shots = []
    for _ in range(count):
        request = scenario.next_request()
        shots.append(Shot(request, f"GET {request.path} HTTP/1.1\r\n{rest}\r\n".encode()))
    return shots


def due_times(kind: Arrivals, rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield seconds from the start at which requests are due. `rate`: requests a second.

    `poisson`: gaps are exponential, as of many people who know nothing of each other; `constant`: they are equal.
    """
    if kind == "constant":
        for number in range(int(rate * seconds)):
            yield number / rate
        return
    chance = random.Random(seed)  # noqa: S311 - not a secret
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)
