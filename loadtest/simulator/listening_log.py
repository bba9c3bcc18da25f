"""Sessions as a listening log, one JSON object a line, with the keys of botify's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loadtest.simulator.days import Sitting


def write_log(sittings: Iterable[Sitting], path: Path) -> None:
    """Write a line for each report that a service got: `next`, and `last` at a session's end, in order of time."""
    lines: list[tuple[int, int, int, str]] = []
    for sitting in sittings:
        last = len(sitting.played) - 1
        for n, (playback, at_ms) in enumerate(zip(sitting.played, sitting.at_ms, strict=True)):
            ended = n == last
            record: dict[str, Any] = {
                "message": "last" if ended else "next",
                "timestamp": at_ms,
                "user": sitting.user,
                "track": playback.track,
                "time": playback.time,
                "latency": 0.0 if ended else sitting.latency_s[n],
                "recommendation": None if ended else sitting.played[n + 1].track,
                "experiments": {},
            }
            lines.append((at_ms, sitting.number, n, json.dumps(record)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for *_, line in sorted(lines):
            file.write(line + "\n")
