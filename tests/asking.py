"""What a test asks a running service, and what it reports to it as a client would."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import orjson
from served import Served

WARM, COLD = 100, 999_999
"""A user with a trained vector in the tiny bundle, and one whom it does not know."""
_numbers = itertools.count()


def report(service: Served, user: int, *items: int, kind: str = "view") -> None:
    """What a client does after somebody did something."""
    events = [
        {"event_id": f"e{next(_numbers)}", "type": kind, "user_id": user, "item_id": item, "timestamp_ms": 1}
        for item in items
    ]
    answer = httpx.post(
        f"{service.url}/v1/events", json={"events": events}, headers=service.headers, timeout=30
    )
    assert answer.status_code == 200, answer.text


def asked(service: Served, user: int, model: str = "als") -> tuple[list[int], str, str | None]:
    """Items, where they came from, and what was left out."""
    answer = service.get(f"/reco/{model}/{user}?k=5")
    assert answer.status_code == 200, answer.text
    items: list[int] = answer.json()["items"]
    assert len(items) == len(set(items)) == 5
    return items, answer.headers["x-reco-source"], answer.headers.get("x-reco-degraded")


def posted(service: Served, path: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"{service.url}/v1/{path}", json=body, headers=service.headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return orjson.loads(answer.content)
