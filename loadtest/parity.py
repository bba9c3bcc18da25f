"""Does a running service answer with these items? Asked over HTTP, from outside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

_TRIES = 5
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """A user whom the service answered otherwise. `answered` is None where there was no list to compare."""

    user_id: int | str
    expected: Sequence[Any]
    answered: Sequence[Any] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Parity:
    """What was asked and what differed, in the order asked. `bundles`: ids that the service named."""

    asked: int
    differences: tuple[Difference, ...]
    bundles: tuple[str, ...]


def verify(
    url: str,
    model: str,
    expected: Mapping[int | str, Sequence[Any]],
    *,
    k: int,
    token: str | None = None,
    bundle_id: str | None = None,
    timeout_s: float = 10.0,
) -> Parity:
    """Ask `GET /reco/{model}/{user}` for each user and compare item by item, order included.

    An answer that the service calls degraded is asked for again, a few times, and so is one that says to come
    again: it says what fitted its deadline then, not what it holds. With `bundle_id`, an answer out of another bundle
    differs whatever its items. Raises ConnectionError where the service can't be reached; PermissionError where it
    refuses the token.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    differences: list[Difference] = []
    bundles: dict[str, None] = {}
    try:
        with httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s) as client:
            for user_id, items in expected.items():
                response = _ask(client, f"/reco/{quote(model, safe='')}/{quote(str(user_id), safe='')}", k)
                if response.status_code in (401, 403):
                    raise PermissionError(f"{url} answered {response.status_code}: it wants another token")
                served = response.headers.get("X-Reco-Bundle")
                if served:
                    bundles[served] = None
                difference = _difference(user_id, list(items), response, bundle_id)
                if difference is not None:
                    differences.append(difference)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url} can't be asked: {error}") from error
    return Parity(len(expected), tuple(differences), tuple(bundles))


def _ask(client: httpx.Client, path: str, k: int) -> httpx.Response:
    for attempt in range(_TRIES):
        response = client.get(path, params={"k": k})
        shed = response.status_code == httpx.codes.SERVICE_UNAVAILABLE and "Retry-After" in response.headers
        if not shed and not response.headers.get("X-Reco-Degraded"):
            return response
        time.sleep(_PAUSE_S * attempt)
    return response


def _difference(
    user_id: int | str, expected: list[Any], response: httpx.Response, bundle_id: str | None
) -> Difference | None:
    if response.status_code != httpx.codes.OK:
        return Difference(user_id, expected, None, f"status {response.status_code}: {response.text[:200]}")
    try:
        body = response.json()
        answered = list(body["items"])
    except (ValueError, KeyError, TypeError):
        return Difference(user_id, expected, None, f"no list of items in the answer: {response.text[:200]}")
    served = response.headers.get("X-Reco-Bundle")
    if bundle_id is not None and served is not None and served != bundle_id:
        return Difference(user_id, expected, answered, f"the service holds bundle {served}, not {bundle_id}")
    if answered != expected:
        place = next(
            (n for n, (a, b) in enumerate(zip(answered, expected, strict=False)) if a != b),
            min(len(answered), len(expected)),
        )
        degraded = response.headers.get("X-Reco-Degraded")
        excuse = f" (degraded: {degraded})" if degraded else ""
        return Difference(user_id, expected, answered, f"differs from place {place + 1} on{excuse}")
    return None
