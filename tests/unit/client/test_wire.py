"""The client's core without a server: what it sends, what it makes of answers, what it never shows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import service.client
from service.client import (
    AnswerNotUnderstood,
    AsyncRecoClient,
    Filter,
    Forbidden,
    InvalidQuestion,
    NotFound,
    Question,
    RecoClient,
    RecoClientError,
    RequestRefused,
    ServerFailed,
    ServiceUnreachable,
    ServiceUnready,
    TimedOut,
    Unauthorized,
)

SECRET = "kd83-not-to-be-seen"
SLATE = {
    "request_id": "r-1", "bundle": "b", "model": "als", "source": "personal", "degraded": [],
    "items": [{"item_id": 1, "score": 0.5, "source": "personal"}], "timings_ms": {},
}  # fmt: skip


def answering(status: int, body: Any = None, headers: dict[str, str] | None = None) -> httpx.MockTransport:
    """A service that gives one answer, as bytes on the wire would be."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.MockTransport(lambda request: httpx.Response(status, content=content, headers=headers))


def client(transport: httpx.BaseTransport, **arguments: Any) -> RecoClient:
    return RecoClient("http://service", token=SECRET, transport=transport, **arguments)


def sent_by(call: Any, **arguments: Any) -> httpx.Request:
    """The request that a call sends."""
    caught: list[httpx.Request] = []

    def catch(request: httpx.Request) -> httpx.Response:
        caught.append(request)
        return httpx.Response(200, json=SLATE)

    reco = RecoClient("http://service", transport=httpx.MockTransport(catch), **arguments)
    with reco, contextlib.suppress(AnswerNotUnderstood):
        call(reco)
    return caught[0]


class TestTokens:
    def test_the_argument_wins_over_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RECO_TOKEN", "from-variable")
        assert sent_by(lambda reco: reco.health()).headers["authorization"] == "Bearer from-variable"
        assert sent_by(lambda reco: reco.health(), token="given").headers["authorization"] == "Bearer given"

    def test_without_one_no_header_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RECO_TOKEN", raising=False)
        assert "authorization" not in sent_by(lambda reco: reco.health()).headers

    @pytest.mark.parametrize("kind", [RecoClient, AsyncRecoClient])
    def test_it_never_shows(self, kind: Any) -> None:
        reco = kind("http://service", token=SECRET)
        for shown in (repr(reco), str(reco), repr(reco.access), str(reco.access)):
            assert SECRET not in shown
            assert "http://service" in shown

    @pytest.mark.parametrize("token", ["two words", "line\r\nX-Evil: 1", "ключ", "\x00"])
    def test_one_that_no_header_can_carry_is_refused_without_being_repeated(self, token: str) -> None:
        with pytest.raises(ValueError, match="visible ASCII") as refused:
            RecoClient("http://service", token=token)
        assert token not in str(refused.value)

    def test_errors_do_not_show_it(self) -> None:
        def broken(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused", request=request)

        with client(httpx.MockTransport(broken)) as reco, pytest.raises(ServiceUnreachable) as error:
            reco.recommend(1)
        assert SECRET not in str(error.value)


class TestRequests:
    def test_a_question_sends_only_what_was_set(self) -> None:
        request = sent_by(lambda reco: reco.v1_recommend(Question(user_id=1)))
        assert json.loads(request.content) == {"user_id": 1, "model": "default", "exclude_seen": True}

    def test_a_question_in_full(self) -> None:
        asked = Question(
            user_id="u", history=("a", "b"), model="als", k=3, exclude_seen=False,
            filter=Filter(allow=["a"], deny=("b",), attributes={"genres": ("drama",)}),
        )  # fmt: skip
        request = sent_by(lambda reco: reco.v1_recommend(asked, budget_ms=7.5, request_id="mine"))
        assert request.headers["x-request-id"] == "mine"
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.content) == {
            "user_id": "u", "history": ["a", "b"], "model": "als", "k": 3, "exclude_seen": False, "budget_ms": 7.5,
            "filter": {"allow": ["a"], "deny": ["b"], "attributes": {"genres": ["drama"]}},
        }  # fmt: skip

    def test_the_hot_route_takes_k_and_budget(self) -> None:
        request = sent_by(lambda reco: reco.recommend(5, k=3, model="als", budget_ms=12.5, request_id="mine"))
        assert request.url.raw_path == b"/reco/als/5?k=3"
        assert request.headers["x-reco-budget-ms"] == "12.5"

    @given(user_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
    def test_any_user_id_stays_one_segment_of_the_path(self, user_id: str) -> None:
        path = sent_by(lambda reco: reco.recommend(user_id, model="als")).url.raw_path
        assert path.startswith(b"/reco/als/")
        assert path.count(b"/") == 3
        assert b"?" not in path
        assert httpx.URL(f"http://x/?v={path[10:].decode()}").params["v"] == user_id


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, InvalidQuestion), (401, Unauthorized), (403, Forbidden), (404, NotFound), (405, InvalidQuestion),
            (413, InvalidQuestion), (415, InvalidQuestion), (422, InvalidQuestion), (429, InvalidQuestion),
            (500, ServerFailed), (502, ServerFailed), (503, ServiceUnready),
        ],
    )  # fmt: skip
    def test_each_status_has_its_error_in_both_envelopes(
        self, status: int, kind: type[RequestRefused]
    ) -> None:
        problem = {
            "type": "urn:reco:problem:some_kind", "title": "t", "status": status, "detail": "why", "instance": "r-7",
            "errors": [{"loc": ["body", "k"], "msg": "too small", "type": "greater_than_equal"}],
        }  # fmt: skip
        template = {
            "errors": [{"error_key": "some_kind", "error_message": "why", "error_loc": ["query", "k"]}]
        }
        for body, place in ((problem, ("body", "k")), (template, ("query", "k"))):
            transport = answering(status, body, {"x-request-id": "r-7"})
            with client(transport) as reco, pytest.raises(RequestRefused) as refused:
                reco.models()
            error = refused.value
            assert type(error) is kind
            assert (error.status, error.kind, error.message, error.request_id) == (
                status,
                "some_kind",
                "why",
                "r-7",
            )
            assert error.faults[0].location == place
            assert "r-7" in str(error)

    @pytest.mark.parametrize("status", [200, 302, 404, 500, 502])
    @pytest.mark.parametrize(
        "body",
        [b"", b"<html>gateway</html>", b"\xff", b"null", b"5", b"[]", b'"errors"', b"{}", b'{"errors": []}'],
    )
    def test_what_is_no_answer_of_the_service_is_told_apart(self, status: int, body: bytes) -> None:
        asked: list[Callable[[RecoClient], object]] = [
            lambda reco: reco.recommend(1),
            lambda reco: reco.v1_recommend(Question(user_id=1)),
            lambda reco: reco.batch([Question(user_id=1)]),
            lambda reco: reco.similar(1),
            lambda reco: reco.models(),
            lambda reco: reco.health(),
        ]
        for ask in asked:
            with client(answering(status, body)) as reco, pytest.raises(AnswerNotUnderstood):
                ask(reco)

    def test_time_running_out_is_told_from_no_connection(self) -> None:
        def late(request: httpx.Request) -> httpx.Response:
            raise httpx.ReadTimeout("late", request=request)

        with (
            client(httpx.MockTransport(late), timeout_s=0.5) as reco,
            pytest.raises(TimedOut, match=r"0\.5 s"),
        ):
            reco.recommend(1)

    @pytest.mark.parametrize("status", [401, 404, 422, 500, 503])
    def test_nothing_is_sent_twice(self, status: int) -> None:
        sent = 0

        def refuse(request: httpx.Request) -> httpx.Response:
            nonlocal sent
            sent += 1
            return httpx.Response(status, json={})

        with client(httpx.MockTransport(refuse)) as reco, pytest.raises(RecoClientError):
            reco.recommend(1)
        assert sent == 1

    def test_every_error_is_of_the_one_tree_and_exported(self) -> None:
        errors = [
            value
            for name in service.client.__all__
            if isinstance(value := getattr(service.client, name), type) and issubclass(value, Exception)
        ]
        assert len(errors) == 11
        assert all(issubclass(error, RecoClientError) for error in errors)


def test_everything_exported_is_there_and_sorted() -> None:
    assert list(service.client.__all__) == sorted(service.client.__all__)
    assert all(hasattr(service.client, name) for name in service.client.__all__)


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")} - {"close", "aclose"}

    assert calls(RecoClient) == calls(AsyncRecoClient)
