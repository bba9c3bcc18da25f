"""What a file of experiments declares that their analysis must know: split, control, start and end."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import InputError


@dataclass(frozen=True, slots=True)
class Declared:
    """One experiment. `weights`: share by treatment in any unit; None of all: not declared."""

    weights: dict[str, float] | None = None
    control: str | None = None
    began_ms: int | None = None
    ended_ms: int | None = None


def read_declared(path: Path) -> dict[str, Declared]:
    """Read the file that the service runs, ours (`[experiments.NAME]`) or botify's (`[NAME]`), by experiment.

    The service checks the file whole; here only what is used. Raises InputError naming file, table and key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--experiments: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    if "experiments" in document or "shadows" in document:
        tables = _table(document.get("experiments", {}), f"{path}: [experiments]")
        return {
            name: _ours(_table(one, f"{path}: [experiments.{name}]"), path, name)
            for name, one in tables.items()
        }
    return {name: _botify(_table(one, f"{path}: [{name}]"), path, name) for name, one in document.items()}


def _ours(table: Mapping[str, Any], path: Path, name: str) -> Declared:
    where = f"{path}: [experiments.{name}]"
    treatments = _table(table.get("treatments"), f"{where} treatments")
    weights: dict[str, float] = {}
    for treatment, one in treatments.items():
        weight = _table(one, f"{where} treatments.{treatment}").get("weight", 1.0)
        if not isinstance(weight, int | float) or not weight > 0:
            raise InputError(
                f"{where} treatments.{treatment}.weight: must be a number above 0, not {weight!r}"
            )
        weights[treatment] = float(weight)
    control = table.get("control")
    if control is not None and control not in weights:
        raise InputError(f"{where} control names no treatment: {control!r}")
    return Declared(weights, control, _moment(table, "start", where), _moment(table, "end", where))


def _botify(table: Mapping[str, Any], path: Path, name: str) -> Declared:
    split = table.get("split", len(table.get("treatments", ())))
    if not isinstance(split, int) or split < 1:
        raise InputError(f"{path}: [{name}] split: must be a whole number from 1, not {split!r}")
    return Declared({"C" if n == 0 else f"T{n}": 1.0 for n in range(split)}, "C")


def _moment(table: Mapping[str, Any], key: str, where: str) -> int | None:
    found = table.get(key)
    if found is None:
        return None
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise InputError(f"{where} {key}: must be a date and time with its zone, not {found!r}")
    return round(found.astimezone(UTC).timestamp() * 1000)


def _table(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"{where}: must be a table")
    return found
