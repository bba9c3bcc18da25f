"""Parity with a service over HTTP: what counts as an answer, as a difference, as not being asked at all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from running import listening

from loadtest.parity import verify

Headers = dict[str, str]
Answers = Callable[[str, int], tuple[int, Headers, bytes]]


class Service:
    """An HTTP service that answers by a function of the path and of how often that path was asked."""

    def __init__(self, answer: Answers) -> None:
        self._answer = answer
        self.asked: list[str] = []
        self.tokens: list[str | None] = []

    async def __call__(
        self,
        scope: dict[str, object],
        receive: Callable[[], Awaitable[dict[str, object]]],
        send: Callable[[dict[str, object]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        raw, query = scope["raw_path"], scope["query_string"]
        assert isinstance(raw, bytes)
        assert isinstance(query, bytes)
        headers = dict(scope["headers"])  # type: ignore[call-overload]
        path = raw.decode() + "?" + query.decode()
        status, sent, body = self._answer(path, self.asked.count(path))
        self.asked.append(path)
        self.tokens.append(headers.get(b"authorization", b"").decode() or None)
        pairs = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


def items(*found: object, **headers: str) -> tuple[int, Headers, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return 200, named, json.dumps({"user_id": 1, "items": found}).encode()


def test_equal_lists_are_parity_and_the_token_is_sent() -> None:
    service = Service(lambda *_: items(3, 1, 2, X_Reco_Bundle="b1"))
    with listening(service) as (host, port):  # type: ignore[arg-type]
        parity = verify(
            f"http://{host}:{port}/", "als", {1: [3, 1, 2], 2: [3, 1, 2]}, k=3, token="t0k", bundle_id="b1"
        )
    assert (parity.asked, parity.differences, parity.bundles) == (2, (), ("b1",))
    assert service.asked == ["/reco/als/1?k=3", "/reco/als/2?k=3"]
    assert service.tokens == ["Bearer t0k"] * 2


def test_ids_are_quoted_into_the_path() -> None:
    service = Service(lambda *_: items("x"))
    with listening(service) as (host, port):  # type: ignore[arg-type]
        assert verify(f"http://{host}:{port}", "my.als", {"a/b ü?": ["x"]}, k=1).differences == ()
    assert service.asked == ["/reco/my.als/a%2Fb%20%C3%BC%3F?k=1"]
    assert service.tokens == [None]


def test_order_and_length_count() -> None:
    answers = {
        "/reco/m/1?k=3": items(1, 3, 2),
        "/reco/m/2?k=3": items(1, 2),
        "/reco/m/3?k=3": items("1", 2, 3),
    }
    with listening(Service(lambda path, _: answers[path])) as (host, port):  # type: ignore[arg-type]
        parity = verify(f"http://{host}:{port}", "m", {user: [1, 2, 3] for user in (1, 2, 3)}, k=3)
    assert [(d.user_id, d.reason) for d in parity.differences] == [
        (1, "differs from place 2 on"),
        (2, "differs from place 3 on"),
        (3, "differs from place 1 on"),
    ]


def test_degraded_answer_is_asked_for_again_until_it_is_whole() -> None:
    def answer(_: str, before: int) -> tuple[int, Headers, bytes]:
        return items(9, X_Reco_Degraded="retrieve") if before < 2 else items(1)

    service = Service(answer)
    with listening(service) as (host, port):  # type: ignore[arg-type]
        assert verify(f"http://{host}:{port}", "m", {1: [1]}, k=1).differences == ()
    assert len(service.asked) == 3


def test_answer_that_stays_degraded_is_a_difference_that_says_so() -> None:
    service = Service(lambda *_: items(9, X_Reco_Degraded="retrieve"))
    with listening(service) as (host, port):  # type: ignore[arg-type]
        (difference,) = verify(f"http://{host}:{port}", "m", {1: [1]}, k=1).differences
    assert difference.reason == "differs from place 1 on (degraded: retrieve)"


def test_right_items_of_another_bundle_differ() -> None:
    with listening(Service(lambda *_: items(1, X_Reco_Bundle="new"))) as (host, port):  # type: ignore[arg-type]
        (difference,) = verify(f"http://{host}:{port}", "m", {1: [1]}, k=1, bundle_id="old").differences
    assert difference.reason == "the service holds bundle new, not old"


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"user_id": 1}', b'{"items": 5}', b""])
def test_answer_without_a_list_is_a_difference(body: bytes) -> None:
    with listening(Service(lambda *_: (200, {}, body))) as (host, port):  # type: ignore[arg-type]
        (difference,) = verify(f"http://{host}:{port}", "m", {1: [1]}, k=1).differences
    assert difference.answered is None
    assert difference.reason.startswith("no list of items")


@pytest.mark.parametrize("status", [404, 422, 500, 503])
def test_error_status_is_a_difference(status: int) -> None:
    with listening(Service(lambda *_: (status, {}, b"{}"))) as (host, port):  # type: ignore[arg-type]
        (difference,) = verify(f"http://{host}:{port}", "m", {1: [1]}, k=1).differences
    assert difference.reason.startswith(f"status {status}")


@pytest.mark.parametrize("status", [401, 403])
def test_refused_token_ends_the_comparison(status: int) -> None:
    service = Service(lambda *_: (status, {}, b"{}"))
    with listening(service) as (host, port), pytest.raises(PermissionError, match=str(status)):  # type: ignore[arg-type]
        verify(f"http://{host}:{port}", "m", {1: [1], 2: [2]}, k=1, token="secret-word")
    assert len(service.asked) == 1


@pytest.mark.parametrize("url", ["nonsense", "ftp://x"])
def test_service_that_can_t_be_asked_is_a_connection_error(url: str) -> None:
    with pytest.raises(ConnectionError, match="can't be asked"):
        verify(url, "m", {1: [1]}, k=1)
