"""docs/api.md speaks of routes, settings, problems and limits that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from json_schema import faults
from pydantic import BaseModel
from running import settings_for

import service.client
from service.api import guarded, problems, v1_schemas
from service.app import create_app
from service.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")


@pytest.fixture(scope="module")
def document(artifacts: Path) -> dict[str, object]:
    settings = settings_for(artifacts, profiles="mts,handbook,explain", events_dir=artifacts / "events")
    made: dict[str, object] = create_app(settings).openapi()
    return made


def test_it_names_every_route_and_no_other(document: dict[str, dict[str, dict[str, object]]]) -> None:
    named = {(method.lower(), path) for method, path in re.findall(r"`(GET|POST) (/[^`? ]*)", PAGE)}
    documented = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert named == documented


def test_it_names_settings_that_exist() -> None:
    named = set(re.findall(r"RECO_([A-Z_]+)", PAGE)) - {"TOKEN"}  # the client's own
    assert len(named) >= 8
    assert named <= {name.upper() for name in Settings.model_fields}


def test_it_names_every_kind_of_problem() -> None:
    kinds = PAGE[PAGE.index("`type` is stable") : PAGE.index("The token is checked before")]
    assert set(re.findall(r"`(\w+)`", kinds)) - {"type"} == set(problems.TITLES) - {"refused"}


def test_its_limits_are_the_codes() -> None:
    assert (guarded.MAX_BODY_BYTES, guarded.MAX_KEYS, guarded.MAX_OBJECTS) == (1 << 20, 256, 10_000)
    assert (problems.MAX_FAULTS, v1_schemas.MAX_HISTORY, v1_schemas.MAX_ID_CHARACTERS) == (32, 1000, 256)
    for words in ("1 MiB", "256 keys", "10,000 objects", "At most 32", "at most 1000", "1 to 256 characters"):
        assert words in PAGE.replace("\n", " ")


def test_its_json_fits_the_schemas(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
    models: list[type[BaseModel]] = [v1_schemas.RecommendBody, v1_schemas.RecommendAnswer, v1_schemas.Problem]
    blocks = [block.partition("{") for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    for model, (_, brace, rest) in zip(models, blocks, strict=True):
        parsed = model.model_validate_json(brace + rest, strict=True)
        shown = parsed.model_dump(mode="json", exclude_none=True)
        assert list(faults(shown, document["components"]["schemas"][model.__name__], document)) == []


def test_it_names_errors_of_the_client_that_exist() -> None:
    tree = PAGE[PAGE.index("Errors are a tree") : PAGE.index("one from an answer")]
    assert set(re.findall(r"`(\w+)`", tree)) <= set(service.client.__all__)
