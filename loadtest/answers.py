"""Whether an answer of `/reco` is right. A fast wrong answer is a failure, counted by its reason."""

from __future__ import annotations

import json

from loadtest.users import UserId


def fault_of(status: int, body: bytes, *, user: UserId, k: int) -> str | None:
    """Say what is wrong with an answer, in few distinct words; None when it is right.

    Right is 200 with `{"user_id": the one asked for, "items": [k different ids]}`. Status 0 is no answer at all.
    """
    if status != 200:
        return f"status {status}" if status else "no answer"
    try:
        answer = json.loads(body)
    except ValueError:
        return "not JSON"
    if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
        return "no list of items"
    items = answer["items"]
    faults = (
        (answer.get("user_id") != user, "another user's answer"),
        (len(items) != k, f"{len(items)} items instead of {k}"),
        (len({json.dumps(item) for item in items}) != len(items), "an item twice"),
    )
    return next((reason for wrong, reason in faults if wrong), None)
