"""Whatever is thrown at botify's routes: no 5xx, refusals in its envelope, and a log that holds what was taken."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botify_catalogue import TRACKS, write_botify_bundle
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from json_schema import faults
from running import ask, settings_for

from service.app import RecoApp, create_app

# More cases than CI has time for: RECO_HOSTILE_EXAMPLES=20000 pytest tests/contract/test_botify_hostile.py
EXAMPLES = int(os.environ.get("RECO_HOSTILE_EXAMPLES", "250"))
BUDGET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LEAKS = (b"Traceback", b"service/", b"site-packages", b"object at 0x")

scalar = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=8),
    st.sampled_from(["7", " 7", "7.9", "1_0", "٣", "nan", "inf", "1e999", "9" * 5000, 10**400, -0.0, 5e-324, 1e308]),
)  # fmt: skip
value = st.one_of(
    scalar, st.lists(scalar, max_size=3), st.dictionaries(st.text(max_size=3), scalar, max_size=2)
)
fields = st.fixed_dictionaries({}, optional={"track": value, "time": value, "x": value})
track = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from(TRACKS))
time = st.floats(allow_nan=False, allow_infinity=False)
body = st.one_of(
    st.builds(lambda track, time: json.dumps({"track": track, "time": time}).encode(), track, time),
    st.builds(lambda track, time: json.dumps({"track": track, "time": time}).encode(), value, time),
    fields.map(lambda document: json.dumps(document).encode("utf-8", "surrogatepass")),
    value.map(lambda document: json.dumps(document).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
)
raw_path = st.one_of(
    st.builds(
        lambda head, tail: f"/{head}/{tail}".encode(),
        st.sampled_from(["next", "last", "track", "NEXT", ""]),
        st.one_of(st.integers(-5, 10**19).map(str), st.sampled_from(["", "1/", "%31", "%D9%A3", "1.5", "a"])),
    ),
    st.sampled_from([b"/", b"//", b"/?", b"/next", b"/track"]),
    st.builds(lambda tail: b"/next/" + tail, st.binary(max_size=6)),
)


class Target:
    """The app in a loop of its own, and the file it logs to."""

    def __init__(self, app: RecoApp, loop: asyncio.AbstractEventLoop, log: Path) -> None:
        self._loop, self.app, self.log, self.taken = loop, app, log, 0
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://service")

    def post(self, path: str, content: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return self._loop.run_until_complete(self._client.post(path, content=content, headers=headers))

    def ask(self, path: bytes, method: str) -> Any:
        return self._loop.run_until_complete(ask(self.app, path, method=method, headers=[]))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("music")
    write_botify_bundle(root)
    log = root / "data.json"
    loop = asyncio.new_event_loop()
    app = create_app(settings_for(root, profiles="botify", botify_log=log))
    lifespan = app.router.lifespan_context(app)
    loop.run_until_complete(lifespan.__aenter__())
    target = Target(app, loop, log)
    yield target
    loop.run_until_complete(lifespan.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == target.taken > 20


@seed(20240611)
@BUDGET
@given(route=st.sampled_from(["next", "last"]), user=st.integers(0, 10**18 - 1), content=body)
def test_bodies(target: Target, route: str, user: int, content: bytes) -> None:
    answer = target.post(f"/{route}/{user}", content)
    shown = (content[:200], answer.status_code, answer.content[:300])
    assert answer.status_code in (200, 400), shown
    assert not [leak for leak in LEAKS if leak in answer.content], shown
    assert len(answer.content) < 500, shown
    found = answer.json()
    if answer.status_code == 400:
        assert list(found) == ["message"], shown
        return
    target.taken += 1
    assert found["user"] == user, shown
    assert route == "last" or found["track"] in TRACKS, shown


@seed(20240612)
@BUDGET
@given(path=raw_path, method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]))
def test_paths_and_methods(target: Target, path: bytes, method: str) -> None:
    answer = target.ask(path, method)
    shown = (path, method, answer.status, answer.body[:300])
    assert answer.status in (200, 400, 404, 405), shown
    assert not [leak for leak in LEAKS if leak in answer.body], shown
    if method != "HEAD":
        json.loads(answer.body)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [("get", "/", "/"), ("get", "/track/10", "/track/{track}"), ("post", "/next/1", "/next/{user}"),
     ("post", "/last/1", "/last/{user}"), ("get", "/track/11", "/track/{track}"), ("post", "/next/x", "/next/{user}")],
)  # fmt: skip
def test_answers_fit_the_document(target: Target, method: str, path: str, route: str) -> None:
    document = target.app.openapi()
    operation = document["paths"][route][method]
    assert "security" not in operation
    if method == "post":
        answer: Any = target.post(path, b'{"track": 10, "time": 1}')
        status, found = answer.status_code, answer.json()
        target.taken += status == 200
    else:
        answer = target.ask(path.encode(), "GET")
        status, found = answer.status, json.loads(answer.body)
    schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
    assert list(faults(found, schema, document)) == []
    missing = operation["responses"].get("400")
    assert (missing is not None) == (method == "post")
