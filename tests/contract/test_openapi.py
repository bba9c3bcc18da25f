"""The OpenAPI document tells the truth: all routes, all statuses, examples that fit, errors that really come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from json_schema import faults
from running import BEARER, running, settings_for

from service.app import RecoApp, create_app
from service.recommender.live import LiveBundle

Document = dict[str, Any]
ADMIN_ONLY = "wB7nQe2sVd9kLz4tHy1p"
PROFILES = "mts,handbook,explain"
UNDOCUMENTED = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


def app_of(artifacts: Path, **changes: Any) -> RecoApp:
    settings = settings_for(artifacts, profiles=PROFILES, events_dir=artifacts / "events", **changes)
    return create_app(settings)


@pytest.fixture(scope="module")
def document(artifacts: Path) -> Document:
    made: Document = app_of(artifacts).openapi()
    return made


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def examples(node: Any, schema: Document | None = None) -> Iterator[tuple[Any, Document]]:
    """Every example in the document with the schema it stands beside."""
    if isinstance(node, list):
        for inner in node:
            yield from examples(inner)
    if not isinstance(node, dict):
        return
    if "example" in node and isinstance(node.get("schema"), dict):
        yield node["example"], node["schema"]
    if isinstance(node.get("examples"), list):
        is_parameter = "in" in node and "schema" in node
        for example in node["examples"]:
            yield example, node["schema"] if is_parameter else node
    for name, inner in node.items():
        if name not in {"example", "examples"}:
            yield from examples(inner)


def test_every_route_of_the_app_is_in_the_document(artifacts: Path) -> None:
    app = app_of(artifacts)
    documented = {(path, method.upper()) for path, method, _ in operations(app.openapi())}
    routed = set()
    for context in iter_route_contexts(app.routes):
        path = str(getattr(context, "path", ""))
        if path not in UNDOCUMENTED:
            routed |= {(path, method) for method in getattr(context, "methods", None) or ()}
    assert ("/v1/recommend", "POST") in routed
    assert routed | {("/reco/{model_name}/{user_id}", "GET")} == documented


def test_every_answer_has_a_body_schema_and_an_example_or_a_schema_with_examples(document: Document) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            assert response["description"], (path, method, status)
            for content in response["content"].values():
                assert content["schema"], (path, method, status)
                shown = list(examples(content)) or list(examples(_resolve(content["schema"], document)))
                assert shown, (path, method, status)


def test_every_request_body_has_an_example(document: Document) -> None:
    for path, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert list(examples(_resolve(content["schema"], document))), path


def test_every_example_fits_its_own_schema(document: Document) -> None:
    found = list(examples(document))
    assert len(found) > 60
    for example, schema in found:
        assert list(faults(example, schema, document)) == []


def test_every_reference_leads_somewhere(document: Document) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for inner in node.values():
                yield from references(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from references(inner)

    for reference in references(document):
        assert _resolve({"$ref": reference}, document)


def test_what_asks_for_a_token_says_so_and_nothing_else_does(document: Document) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, _, operation in operations(document):
        guarded = not path.startswith(("/health", "/metrics", "/explain/"))
        assert ("security" in operation) == guarded, path
        assert ("401" in operation["responses"]) == guarded, path


def test_opened_profiles_declare_no_token(artifacts: Path) -> None:
    opened = app_of(artifacts, compat_auth=False).openapi()
    assert "security" not in opened["paths"]["/get_recommendation"]["get"]
    assert "security" in opened["paths"]["/v1/recommend"]["post"]
    everything = app_of(artifacts, auth=False, tokens=None).openapi()
    assert not [path for path, _, operation in operations(everything) if "security" in operation]


def test_limits_in_the_document_are_the_settings(artifacts: Path) -> None:
    made = app_of(artifacts, k_max=33, batch_max=7).openapi()
    schemas = made["components"]["schemas"]
    assert schemas["BatchBody"]["properties"]["queries"]["maxItems"] == 7
    assert list(faults({"user_id": 1, "k": 33}, schemas["RecommendBody"], made)) == []
    assert list(faults({"user_id": 1, "k": 34}, schemas["RecommendBody"], made)) != []


def test_profiles_that_are_off_have_neither_routes_nor_words(artifacts: Path) -> None:
    plain = create_app(settings_for(artifacts)).openapi()
    assert not [
        path
        for path in plain["paths"]
        if path.startswith(("/api/", "/recommend_", "/get_", "/index", "/v1/events"))
    ]


@pytest.mark.parametrize("auth", [True, False])
def test_budget_and_request_id_are_declared_where_they_count(artifacts: Path, auth: bool) -> None:
    for path, _, operation in operations(app_of(artifacts, auth=auth).openapi()):
        named = [
            parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "header"
        ]
        assert named == (
            [] if path.startswith(("/health", "/metrics")) else ["X-Reco-Budget-Ms", "X-Request-Id"]
        )


async def test_the_document_and_its_pages_are_served(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        assert (await client.get("/openapi.json")).json()["openapi"].startswith("3.1")
        for page in ("/docs", "/redoc"):
            assert "text/html" in (await client.get(page)).headers["content-type"]


# -- every documented error is real ------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "/v1/recommend": {"user_id": 100},
    "/v1/recommend:batch": {"queries": [{"user_id": 100}]},
    "/v1/similar": {"item_id": 10},
    "/v1/explain": {"user_id": 100, "item_id": 10},
    "/v1/events": {
        "events": [{"event_id": "e-1", "type": "view", "user_id": 100, "item_id": 10, "timestamp_ms": 1}]
    },
    "/api/v1/recommend_for_user": {"user_id": 100},
    "/api/v1/recommend_bruteforce": {"user_id": 100},
    "/recommend_bruteforce": {"user_id": 100},
    "/reco/{model_name}/{user_id}": "/reco/default/100",
    "/get_recommendation": "/get_recommendation?user_id=100",
    "/index": "/index?id=100",
    "/explain/{model}/{user_id}/{item_id}": "/explain/als/100/10",
}
NOWHERE: dict[str, Any] = {
    "/v1/recommend": {"user_id": 100, "model": "nope"},
    "/v1/similar": {"item_id": 11},
    "/v1/explain": {"user_id": 100, "item_id": 11},
    "/explain/{model}/{user_id}/{item_id}": "/explain/als/100/11",
    "/api/v1/recommend_for_user": {"user_id": 99},
    "/api/v1/recommend_bruteforce": {"user_id": 99},
    "/recommend_bruteforce": {"user_id": 99},
    "/reco/{model_name}/{user_id}": "/reco/nope/100",
}
Recipe = Callable[[str, str], dict[str, Any]]


def _good(path: str, method: str) -> dict[str, Any]:
    asked = GOOD.get(path, path)
    if isinstance(asked, str):
        return {"method": method, "url": asked, "headers": BEARER}
    return {"method": method, "url": path, "json": asked, "headers": BEARER}


def _raw(content: bytes, content_type: str) -> Recipe:
    def recipe(path: str, method: str) -> dict[str, Any]:
        return {
            "method": method,
            "url": path,
            "content": content,
            "headers": {**BEARER, "Content-Type": content_type},
        }

    return recipe


def _nowhere(path: str, method: str) -> dict[str, Any]:
    asked = NOWHERE[path]
    return _good(path, method) | ({"url": asked} if isinstance(asked, str) else {"json": asked})


def _malformed(path: str, method: str) -> dict[str, Any]:
    if path == "/reco/{model_name}/{user_id}":
        return _good(path, method) | {"url": "/reco/default/100?k=0"}
    if path.startswith("/explain/"):
        return _good(path, method) | {"url": "/explain/als/100/x"}
    if method == "get":  # /v1/models takes nothing but the budget
        return _good(path, method) | {"headers": {**BEARER, "X-Reco-Budget-Ms": "soon"}}
    return _good(path, method) | {"json": {"unexpected": 1}}


RECIPES: dict[str, Recipe] = {
    "400": _raw(b'{"user_id": NaN}', "application/json"),
    "401": lambda path, method: _good(path, method) | {"headers": {}},
    "403": lambda path, method: _good(path, method) | {"headers": {"Authorization": f"Bearer {ADMIN_ONLY}"}},
    "404": _nowhere,
    "405": lambda path, method: _good(path, method) | {"method": "DELETE"},
    "413": _raw(b" " * (1 << 20) + b"{}", "application/json"),
    "415": _raw(b"{}", "text/plain"),
    "422": _malformed,
    "500": _good,
    "503": _good,
}


async def test_every_documented_error_is_produced_in_its_documented_shape(
    artifacts: Path, document: Document, tmp_path: Path
) -> None:
    settings = settings_for(
        artifacts,
        events_dir=tmp_path,
        profiles=PROFILES,
        tokens=f"shop:{BEARER['Authorization'].split()[1]},ops:{ADMIN_ONLY}:admin",
    )
    produced = set()
    async with running(settings) as (app, _):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        serving = app.state.services.serving
        live = serving.live
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            for path, method, operation in operations(document):
                for status, response in operation["responses"].items():
                    if status == "200" or path == "/health/live":
                        continue
                    # What is live turns out not to be a bundle at all; or nothing is live.
                    serving.live = {"500": cast("LiveBundle", object()), "503": None}.get(status, live)
                    answer = await client.request(**RECIPES[status](path, method))
                    assert answer.status_code == int(status), (path, status, answer.text)
                    content_type = answer.headers["content-type"].partition(";")[0]
                    assert content_type in response["content"], (path, status, content_type)
                    schema = response["content"][content_type]["schema"]
                    assert list(faults(answer.json(), schema, document)) == [], (path, status)
                    if status == "500":
                        assert "object" not in answer.text
                        assert "Traceback" not in answer.text
                    produced.add(status)
            serving.live = live
    assert produced == set(RECIPES)


async def test_every_documented_answer_fits_its_schema(
    artifacts: Path, document: Document, tmp_path: Path
) -> None:
    async with running(settings_for(artifacts, profiles=PROFILES, events_dir=tmp_path)) as (_, client):
        for path, method, operation in operations(document):
            answer = await client.request(**_good(path, method))
            assert answer.status_code == 200, (path, answer.text)
            content_type = answer.headers["content-type"].partition(";")[0]
            schema = operation["responses"]["200"]["content"][content_type]["schema"]
            body = answer.text if content_type == "text/plain" else answer.json()
            assert list(faults(body, schema, document)) == [], path
            for name in operation["responses"]["200"]["headers"]:
                sometimes = name in ("X-Reco-Degraded", "X-Reco-Treatment")
                assert sometimes or name in answer.headers, (path, name)


async def test_a_stalled_loop_is_the_documented_503(artifacts: Path, document: Document) -> None:
    schema = document["paths"]["/health/live"]["get"]["responses"]["503"]["content"]["application/json"][
        "schema"
    ]
    async with running(settings_for(artifacts)) as (app, client):
        for _ in range(100):  # the heartbeat may come round in between
            app.state.services.serving.heartbeat_at -= 60
            answer = await client.get("/health/live")
            if answer.status_code == 503:
                break
        assert answer.status_code == 503
        assert list(faults(answer.json(), schema, document)) == []


def _resolve(schema: Document, document: Document) -> Document:
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema
