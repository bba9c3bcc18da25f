"""The TOML file that says how to read the data and how to train each model.

    reader = "table"
    [columns]
    user_id = "uid"
    [als]
    factors = 64
    regularization = 30.0
    [avatars]
    action = ["Die Hard (1988)", 1240]

A model's section gives its settings (the fields of its room's `Config`); what it leaves out keeps its default.
An avatar is a made-up user by name, who has read the items listed, by id or title (`models.data.avatars`).
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.build.recipes import RECIPES
from models.ranker.config import Config as RankerConfig
from service.domain import ItemId
from service.errors import InputError

_TYPES: Mapping[str, type[Any]] = {
    **{name: recipe.config_type for name, recipe in RECIPES.items()},
    "two_stage": RankerConfig,
}


_TUNES = ("off", "quick", "full")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole build, declared: what `reco recipe` does with a data set. models: besides popular."""

    models: tuple[str, ...]
    about: str = ""
    tune: str = "quick"


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What a settings file says; all of it may be absent. `configs`: model name -> its `Config`."""

    reader: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Any] = field(default_factory=dict)
    avatars: Mapping[str, tuple[ItemId, ...]] = field(default_factory=dict)
    recipe: Recipe | None = None
    """Its [recipe] table; only `reco recipe` follows it."""


def read_settings(path: Path) -> BuildSettings:
    """Read and check a settings file. Raises InputError naming the file, the section and the key."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    reader, columns = document.pop("reader", None), document.pop("columns", {})
    if reader is not None and not isinstance(reader, str):
        raise InputError(f"{path}: reader: must be text, found {reader!r}")
    if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
        raise InputError(f"{path}: [columns]: must map our names to the file's columns")
    recipe = _recipe(path, document.pop("recipe", None))
    avatars = document.pop("avatars", {})
    if not isinstance(avatars, dict) or not all(_is_items(listed) for listed in avatars.values()):
        raise InputError(f"{path}: [avatars]: must map names to lists of item ids or titles")
    if unknown := sorted(set(document) - set(_TYPES)):
        known = ", ".join(("reader", "columns", "avatars", *_TYPES))
        raise InputError(f"{path}: no such section {unknown[0]!r} (known: {known})")
    return BuildSettings(
        reader,
        columns,
        {name: _config(path, name, section) for name, section in document.items()},
        {name: tuple(listed) for name, listed in avatars.items()},
        recipe,
    )


def _recipe(path: Path, section: Any) -> Recipe | None:
    if section is None:
        return None
    if not isinstance(section, dict):
        raise InputError(f"{path}: recipe: must be a section, [recipe]")
    if unknown := sorted(section.keys() - {"models", "about", "tune"}):
        raise InputError(f"{path}: [recipe] {unknown[0]}: no such key (known: models, about, tune)")
    models = section.get("models")
    if not isinstance(models, list) or not models or not set(models) <= set(_TYPES):
        raise InputError(f"{path}: [recipe] models: must be a list of {', '.join(_TYPES)}, found {models!r}")
    tune = section.get("tune", "quick")
    if tune not in _TUNES:
        raise InputError(f"{path}: [recipe] tune: must be one of {', '.join(_TUNES)}, found {tune!r}")
    return Recipe(tuple(models), str(section.get("about", "")), tune)


def write_settings(path: Path, configs: Mapping[str, Any]) -> None:
    """Write the sections of some models; what else the file said stays."""
    before = read_settings(path) if path.exists() else BuildSettings()
    lines = [] if before.reader is None else [f"reader = {_toml(before.reader)}"]
    sections: dict[str, Mapping[str, Any]] = {"columns": before.columns} if before.columns else {}
    if before.avatars:
        sections["avatars"] = before.avatars
    if before.recipe is not None:
        sections["recipe"] = dataclasses.asdict(before.recipe)
    merged = {**before.configs, **configs}
    sections |= {name: dataclasses.asdict(merged[name]) for name in _TYPES if name in merged}
    lines += _sections(sections, after=bool(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def settings_text(configs: Mapping[str, Any]) -> str:
    """Sections of some models as TOML, as `reco build --config` reads them."""
    return "\n".join(_sections({name: dataclasses.asdict(config) for name, config in configs.items()}))


def _sections(sections: Mapping[str, Mapping[str, Any]], *, after: bool = False) -> list[str]:
    lines: list[str] = []
    for name, section in sections.items():
        lines += ["", f"[{name}]"] if lines or after else [f"[{name}]"]
        lines += [f"{_toml_key(key)} = {_toml(value)}" for key, value in section.items() if value is not None]
    return lines


def _is_items(listed: Any) -> bool:
    return isinstance(listed, list) and all(
        isinstance(item, int | str) and not isinstance(item, bool) for item in listed
    )


def _config(path: Path, name: str, section: Any) -> Any:
    config_type = _TYPES[name]
    if not isinstance(section, dict):
        raise InputError(f"{path}: {name}: must be a section, [{name}]")
    kinds = typing.get_type_hints(config_type)
    values = {}
    for key, value in section.items():
        if key not in kinds:
            raise InputError(f"{path}: [{name}] {key}: no such setting (known: {', '.join(kinds)})")
        values[key] = _checked(f"{path}: [{name}] {key}", kinds[key], value)
    return config_type(**values)


def _checked(where: str, kind: Any, value: Any) -> Any:
    """A TOML value as the type a field declares: the few that configurations use."""
    if isinstance(kind, types.UnionType):  # `X | None`: TOML has no null, so what is there is an X
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if not _fits(kind, value):
        raise InputError(f"{where}: must be {_expected(kind)}, found {value!r}")
    if kind is float:
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _fits(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _expected(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return "a list of text"
    return {bool: "true or false", float: "a number", int: "a whole number"}[kind]


def _toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(part) for part in value)}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _toml(key)
