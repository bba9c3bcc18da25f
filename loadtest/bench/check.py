"""Whether the measured answers are right: checked on a sample before anything is timed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence

from loadtest.answers import fault_of
from loadtest.bench.errors import BenchError
from loadtest.bench.vectors import Vectors

K = 10
V1, PREDICT = "/v1/recommend", "/predict"


def body_of(path: str, user: int, model: str) -> bytes:
    """What is posted to a path to ask for a user's items."""
    return json.dumps({"user_id": user} | ({"model": model} if path == V1 else {})).encode()


def recall_of(
    port: int,
    token: str,
    model: str,
    vectors: Vectors,
    rows: Sequence[int],
    *,
    path: str | None,
    unseen: bool,
) -> float:
    """Mean share of the exact best K that was answered; every answer right in form. Raises BenchError."""
    found = 0
    for row in rows:
        user = int(vectors.user_ids[row])
        items = answered(port, token, model, user, path=path)
        best = vectors.best(row, K, unseen=unseen)
        if unseen and set(items) & set(vectors.seen(row).tolist()):
            raise BenchError(f"user {user} was answered what they have seen")
        found += len(set(items) & set(best))
    return found / (K * len(rows))


def answered(port: int, token: str, model: str, user: int, *, path: str | None) -> list[int]:
    """Ids that a service answers a user. Raises BenchError if the answer is not K different items for them.

    `path`: to POST to; None: GET /reco/.
    """
    url, body = f"http://127.0.0.1:{port}/reco/{model}/{user}", None
    if path is not None:
        url, body = f"http://127.0.0.1:{port}{path}", body_of(path, user, model)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - our own address
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            status, answer = response.status, json.load(response)
    except urllib.error.HTTPError as error:
        status, answer = error.code, {}
    if path == V1 and status == 200:
        answer = {"user_id": user, "items": [item["item_id"] for item in answer["items"]]}
    fault = fault_of(status, json.dumps(answer).encode(), user=user, k=K)
    if fault is not None:
        raise BenchError(f"{url}: {fault}")
    items: list[int] = answer["items"]
    return items
