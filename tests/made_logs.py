"""Event logs made for tests: records with a known truth behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from models.events_table import write_records

START_MS = 1_767_225_600_000
"""Midnight UTC, 2026-01-01."""
DAY_MS = 86_400_000

Record = Mapping[str, Any]


def feedback(event_id: str, kind: str, user: int | str, at: int, **more: Any) -> Record:
    """Feedback on item 1, unless told otherwise."""
    return {
        "type": kind, "event_id": event_id, "user_id": user, "item_id": 1, "timestamp_ms": at, "value": None,
        "request_id": None, "received_ms": at, **more,
    }  # fmt: skip


def slate(request_id: str, user: int | str | None, at: int, items: list[int], **more: Any) -> Record:
    """An impression by the service, chosen by nothing left to chance unless told otherwise."""
    return {
        "type": "impression", "event_id": request_id, "request_id": request_id, "user_id": user, "timestamp_ms": at,
        "bundle": "b1", "model": "als", "treatments": {}, "items": items, "scores": [1.0] * len(items),
        "source": "personal", "degraded": [], "propensities": None, "latency_ms": 2.0, **more,
    }  # fmt: skip


def written(folder: Path, records: Iterable[Record], name: str = "events.parquet") -> Path:
    """Write them as an export."""
    path = folder / name
    write_records(records, path)
    return path


def botify_lines(folder: Path, lines: Iterable[Record], name: str = "data.json") -> Path:
    """Write botify's log."""
    path = folder / name
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def botify_line(
    message: str, at: int, user: int, time: float, latency: float, experiments: Mapping[str, str]
) -> Record:
    """One line of botify's log."""
    return {
        "message": message, "timestamp": at, "user": user, "track": 10, "time": time, "latency": latency,
        "recommendation": None if message == "last" else 11, "experiments": experiments,
    }  # fmt: skip


def listening(
    n_users: int, *, lift: float = 0.0, seed: int = 0, past: bool = False, share: float = 0.5
) -> Iterable[Record]:
    """A botify log of users who listen for as long as their taste has it; treatment T1 adds `lift` to every track.

    With `past`, every user also had two sessions a day earlier, outside of the experiment.
    """
    rng = np.random.default_rng(seed)
    for user in range(n_users):
        taste = rng.uniform(0.2, 0.8)
        treatment = "T1" if rng.random() < share else "C"
        phases: list[tuple[int, dict[str, str], float]] = [(START_MS - DAY_MS, {}, 0.0)] * past + [
            (START_MS, {"E": treatment}, lift if treatment == "T1" else 0.0)
        ]
        for began, experiments, more in phases:
            at = began + user * 10
            for _ in range(2):
                for _ in range(int(rng.integers(2, 6))):
                    at += 100
                    time = float(np.clip(taste + more + rng.normal(0, 0.05), 0, 1))
                    yield botify_line("next", at, user, time, 0.002, experiments)
                at += 100
                yield botify_line("last", at, user, 0.1, 0.001, experiments)
