"""The part of JSON Schema (2020-12) that our OpenAPI document uses. An unknown keyword is an error, not a pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_ANNOTATIONS = {"title", "description", "examples", "example", "default", "format"}
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def faults(value: Any, schema: dict[str, Any], document: dict[str, Any], place: str = "$") -> Iterator[str]:
    """Yield what is wrong with a value; `document` is where references point into."""
    for keyword, wanted in schema.items():
        if keyword not in _ANNOTATIONS:
            yield from _check(keyword, wanted, value, schema, document, place)


def _check(  # noqa: C901, PLR0912 - one branch a keyword
    keyword: str, wanted: Any, value: Any, schema: dict[str, Any], document: dict[str, Any], place: str
) -> Iterator[str]:
    match keyword:
        case "$ref":
            target: Any = document
            for part in wanted.removeprefix("#/").split("/"):
                target = target[part]
            yield from faults(value, target, document, place)
        case "type":
            if not _is(value, wanted):
                yield f"{place}: {value!r} is not {wanted}"
        case "anyOf":
            if all(list(faults(value, option, document, place)) for option in wanted):
                yield f"{place}: {value!r} fits no option of {wanted}"
        case "enum":
            if value not in wanted:
                yield f"{place}: {value!r} is none of {wanted}"
        case "const":
            if value != wanted:
                yield f"{place}: {value!r} is not {wanted!r}"
        case "minimum" | "maximum" | "exclusiveMinimum":
            if (
                isinstance(value, int | float)
                and not {
                    "minimum": value >= wanted,
                    "maximum": value <= wanted,
                    "exclusiveMinimum": value > wanted,
                }[keyword]
            ):
                yield f"{place}: {value!r} breaks {keyword} {wanted}"
        case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
            kind: Any = {"Length": str, "Items": list, "Properties": dict}[keyword[3:]]
            if isinstance(value, kind) and (
                len(value) < wanted if keyword[:3] == "min" else len(value) > wanted
            ):
                yield f"{place}: {len(value)} breaks {keyword} {wanted}"
        case "pattern":
            if isinstance(value, str) and re.search(wanted, value) is None:
                yield f"{place}: {value!r} is not like {wanted}"
        case "required":
            if isinstance(value, dict):
                yield from (f"{place}: no {name!r}" for name in wanted if name not in value)
        case "properties":
            for name, inner in wanted.items() if isinstance(value, dict) else ():
                if name in value:
                    yield from faults(value[name], inner, document, f"{place}.{name}")
        case "additionalProperties":
            known = schema.get("properties", {})
            for name, inner in value.items() if isinstance(value, dict) else ():
                if name not in known and wanted is False:
                    yield f"{place}: {name!r} is not expected"
                elif name not in known and isinstance(wanted, dict):
                    yield from faults(inner, wanted, document, f"{place}.{name}")
        case "propertyNames":
            for name in value if isinstance(value, dict) else ():
                yield from faults(name, wanted, document, f"{place} key")
        case "items":
            for number, inner in enumerate(value if isinstance(value, list) else ()):
                yield from faults(inner, wanted, document, f"{place}[{number}]")
        case _:
            raise AssertionError(f"keyword {keyword!r} is unknown to this checker")


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _TYPES[kind])
