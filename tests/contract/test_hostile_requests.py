"""Whatever is thrown at the whole app: no 5xx, every refusal in its family's envelope, no word of the inside.

The inputs are generated from a fixed seed, so a failure here is a failure everywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from json_schema import faults
from running import TOKEN, settings_for
from starlette.types import Message

from service.app import RecoApp, create_app

POSTED = [
    "/v1/recommend", "/v1/recommend:batch", "/v1/similar", "/api/v1/recommend_for_user",
    "/api/v1/recommend_bruteforce", "/recommend_bruteforce",
]  # fmt: skip
READ = [
    "/reco/als/100",
    "/reco/default/100",
    "/v1/models",
    "/get_recommendation",
    "/index",
    "/health/ready",
    "/metrics",
]
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "QUERY",
    "get",
    "\u00dcBEL",
]
LEAKS = (b"Traceback", b"service/", b"site-packages", b"Error:", b"object at 0x", TOKEN.encode())

# More cases than CI has time for: RECO_HOSTILE_EXAMPLES=20000 pytest tests/contract/test_hostile_requests.py
EXAMPLES = int(os.environ.get("RECO_HOSTILE_EXAMPLES", "120"))
BUDGET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# -- what is thrown ----------------------------------------------------------------------------------------------

text = st.text(st.characters(), max_size=12)
number = st.one_of(
    st.integers(-(10**20), 10**20),
    st.sampled_from([0, 1, 100, 10, 10**9, 10**9 + 1, 10**18 - 1, 10**18, 2**63, 2**64, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
)
leaf = st.one_of(
    st.none(), st.booleans(), number, text, st.sampled_from(["als", "default", "genres", "drama", "..", ""])
)
anything = st.recursive(
    leaf,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)
known_id = st.one_of(
    st.sampled_from([100, 103, 10, 12, 14, 99, "u000", "u003", "item/000", "item/007"]), anything
)
asked = st.fixed_dictionaries(
    {},
    optional={
        "user_id": known_id,
        "item_id": known_id,
        "history": st.one_of(st.lists(known_id, max_size=5), anything),
        "model": st.one_of(st.sampled_from(["als", "knn", "popular", "lists", "nope"]), anything),
        "k": st.one_of(st.integers(1, 60), anything),
        "filter": st.one_of(
            st.fixed_dictionaries(
                {},
                optional={
                    "allow": st.one_of(st.lists(known_id, max_size=5), anything),
                    "deny": st.one_of(st.lists(known_id, max_size=5), anything),
                    "attributes": st.one_of(
                        st.dictionaries(st.sampled_from(["genres", "kind", "x"]), st.lists(text, max_size=3)),
                        anything,
                    ),
                },
            ),
            anything,
        ),
        "exclude_seen": st.one_of(st.booleans(), anything),
        "budget_ms": st.one_of(st.floats(0.001, 100), anything),
        "item_whitelist": st.one_of(st.lists(known_id, max_size=5), anything),
    },
)
document = st.one_of(
    asked, st.fixed_dictionaries({"queries": st.lists(st.one_of(asked, anything), max_size=6)}), anything
)


@st.composite
def body(draw: st.DrawFn) -> bytes:
    """JSON, nearly JSON, and bytes."""
    raw = json.dumps(draw(document)).encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 7)):
        case 0:
            return draw(st.binary(max_size=60))
        case 1:
            at = draw(st.integers(0, len(raw)))
            return raw[:at] + draw(st.binary(max_size=3)) + raw[at:]
        case 2:
            return raw[: draw(st.integers(0, len(raw)))]
        case 3:
            depth = draw(st.sampled_from([10, 500, 1023, 1025, 100_000]))
            return b"[" * depth + raw + b"]" * depth
        case _:
            return raw


path = st.one_of(
    st.sampled_from(POSTED + READ).map(str.encode),
    st.builds(
        lambda model, user: f"/reco/{quote(model, safe='')}/{quote(user, safe='')}".encode(),
        st.one_of(
            st.sampled_from(["als", "default", "%00"]), st.text(st.characters(codec="utf-8"), max_size=8)
        ),
        st.one_of(st.integers(-5, 10**19).map(str), st.text(st.characters(codec="utf-8"), max_size=8)),
    ),
    st.builds(
        lambda head, tail: head.encode() + b"/" + tail,
        st.sampled_from(["", "/v1", "/v1/models", "/reco/als", "/health"]),
        st.binary(max_size=8),
    ),
)
query = st.one_of(
    st.just(b""),
    st.binary(max_size=20),
    st.builds(
        lambda name, value: f"{name}={value}".encode("utf-8", "surrogatepass"),
        st.sampled_from(["k", "user_id", "top_k", "id", "k=3&k", "%6b"]),
        st.one_of(st.sampled_from(["100", "5", "0", "-1", "1_0", "%31", "٣", "9" * 5000]), text),
    ),
)
content_type = st.sampled_from([b"text/plain", b"application/json;", b"a/b/c", b"\xff"])
header_name = st.sampled_from(
    [
        b"x-reco-budget-ms", b"x-request-id", b"content-length", b"origin", b"accept", b"content-type", b"host",
        b"authorization", b"access-control-request-method", b"x-forwarded-for", b"transfer-encoding", b"cookie",
    ]
)  # fmt: skip
header_value = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"0.5", b"1e3", b"nan", b"-1", b"9" * 20, b"\xc2\xb2"])
)
header = st.one_of(st.tuples(st.just(b"content-type"), content_type), st.tuples(header_name, header_value))
headers = st.builds(
    lambda authorised, typed, more: [
        *([(b"authorization", b"Bearer " + TOKEN.encode())] if authorised else []),
        *([(b"content-type", b"application/json")] if typed else []),
        *more,
    ],
    st.sampled_from([True, True, True, False]),
    st.sampled_from([True, True, True, False]),
    st.lists(header, max_size=2),
)


# -- the app they are thrown at ----------------------------------------------------------------------------------


class Target:
    """The app with all profiles on, in a loop of its own, and its OpenAPI document."""

    def __init__(self, loop: asyncio.AbstractEventLoop, app: RecoApp) -> None:
        self._loop, self._app = loop, app
        self.document: dict[str, Any] = app.openapi()

    def throw(
        self,
        method: str,
        raw_path: bytes,
        query_string: bytes,
        sent: list[tuple[bytes, bytes]],
        content: bytes,
    ) -> httpx.Response:
        """One request, as raw as a server could hand it on."""
        return self._loop.run_until_complete(self._throw(method, raw_path, query_string, sent, content))

    async def _throw(
        self,
        method: str,
        raw_path: bytes,
        query_string: bytes,
        sent: list[tuple[bytes, bytes]],
        content: bytes,
    ) -> httpx.Response:
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
            "path": _decoded(raw_path),
            "raw_path": raw_path, "query_string": query_string, "headers": sent,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "asgi": {"version": "3.0"},
        }  # fmt: skip
        answered: list[Message] = []
        waiting = [content[: len(content) // 2], content[len(content) // 2 :]]

        async def receive() -> Message:
            if not waiting:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Message) -> None:
            answered.append(dict(message))

        await self._app(scope, receive, send)
        start = answered[0]
        return httpx.Response(
            start["status"],
            headers=start["headers"],
            content=b"".join(m.get("body", b"") for m in answered[1:]),
        )


def _decoded(raw_path: bytes) -> str:
    return unquote(raw_path.decode("latin-1"))


@pytest.fixture(scope="module", params=["artifacts", "str_artifacts"], ids=["integer ids", "string ids"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    artifacts: Path = request.getfixturevalue(request.param)
    loop = asyncio.new_event_loop()
    app = create_app(settings_for(artifacts, profiles="mts,handbook", batch_max=5))
    lifespan = app.router.lifespan_context(app)
    loop.run_until_complete(lifespan.__aenter__())
    yield Target(loop, app)
    loop.run_until_complete(lifespan.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def envelope_of(raw_path: bytes) -> tuple[str, str]:
    """Content type and schema of a refusal under a path."""
    decoded = _decoded(raw_path)
    if decoded.startswith("/v1/"):
        return "application/problem+json", "Problem"
    if decoded.startswith(("/get_recommendation", "/index")):
        return "application/json", "HandbookAnswer"
    if decoded.startswith(
        ("/api/v1/recommend_for_user", "/api/v1/recommend_bruteforce", "/recommend_bruteforce")
    ):
        return "application/json", "Detail"
    return "application/json", "Errors"


def check(target: Target, method: str, raw_path: bytes, answer: httpx.Response, sent: Any) -> None:
    shown = (method, raw_path, sent, answer.status_code, answer.content[:500])
    assert answer.status_code < 500, shown
    assert not [leak for leak in LEAKS if leak in answer.content and b"metrics" not in raw_path], shown
    assert answer.headers["x-request-id"], shown
    if answer.status_code < 400 or method == "HEAD":
        return
    content_type, schema = envelope_of(raw_path)
    assert answer.headers["content-type"].partition(";")[0] == content_type, shown
    components = target.document["components"]["schemas"]
    assert list(faults(answer.json(), components[schema], target.document)) == [], shown


# -- the throws --------------------------------------------------------------------------------------------------


@seed(20240607)
@BUDGET
@given(where=st.sampled_from(POSTED), content=body(), more=st.lists(header, max_size=1))
def test_bodies(target: Target, where: str, content: bytes, more: list[tuple[bytes, bytes]]) -> None:
    sent = [(b"authorization", b"Bearer " + TOKEN.encode())]
    if not any(name == b"content-type" for name, _ in more):
        sent.append((b"content-type", b"application/json"))
    answer = target.throw("POST", where.encode(), b"", sent + more, content)
    check(target, "POST", where.encode(), answer, (content[:300], more))


@seed(20240608)
@BUDGET
@given(where=st.sampled_from(POSTED), what=asked)
def test_documents_that_nearly_fit(target: Target, where: str, what: dict[str, Any]) -> None:
    content = json.dumps({"queries": [what]} if where.endswith("batch") else what).encode()
    sent = [(b"authorization", b"Bearer " + TOKEN.encode()), (b"content-type", b"application/json")]
    check(
        target,
        "POST",
        where.encode(),
        target.throw("POST", where.encode(), b"", sent, content),
        content[:300],
    )


@seed(20240609)
@settings(BUDGET, max_examples=3 * EXAMPLES)
@given(
    method=st.sampled_from(METHODS),
    where=path,
    asked_for=query,
    sent=headers,
    content=st.one_of(st.just(b""), body()),
)
def test_methods_paths_queries_and_headers(
    target: Target,
    method: str,
    where: bytes,
    asked_for: bytes,
    sent: list[tuple[bytes, bytes]],
    content: bytes,
) -> None:
    answer = target.throw(method, where, asked_for, sent, content)
    check(target, method, where, answer, (asked_for, sent, content[:200]))


@pytest.mark.parametrize("query_string", [b"\x80", b"k=\xff", b"%ff=%fe"])
@pytest.mark.parametrize(
    "where", [b"/v1/recommend", b"/v1/models/", b"/v1/models", b"/nowhere", b"/reco/als/100/"]
)
def test_a_query_that_is_not_utf_8_is_no_accident(target: Target, where: bytes, query_string: bytes) -> None:
    sent = [(b"authorization", b"Bearer " + TOKEN.encode())]
    check(target, "GET", where, target.throw("GET", where, query_string, sent, b""), query_string)
