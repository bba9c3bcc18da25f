"""Scenario files (TOML) of `reco loadtest` and locust: who asks, for what, how requests arrive, and what must hold.

    [users]     ids = "1..100000" or a file's name, zipf, cold, seed
    [requests]  models, k, think (locust's pause)
    [arrivals]  kind = "poisson" or "constant", connections, most_connections, reuse, patience_s
    [search]    least, most (requests a second), seconds (of a step), precision
    [slo]       p99_ms, fallback_share, rate (requests a second that must be carried; 0: none is declared)

Everything has a default; a table or key that is not known is refused.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class Users:
    """Who asks. `cold`: share of requests of users nobody knows."""

    ids: str = "1..100000"
    zipf: float = 1.0
    cold: float = 0.05
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Requests:
    """What is asked for."""

    models: str = "default"
    k: int = 10
    think: str = "0.5..2"


@dataclass(frozen=True, slots=True)
class Arriving:
    """How requests arrive. `reuse` false: each has a connection of its own."""

    kind: Literal["poisson", "constant"] = "poisson"
    connections: int = 64
    most_connections: int = 4096
    reuse: bool = True
    patience_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Search:
    """Where the highest rate is looked for. `precision`: 0.05 ends the search within 5%."""

    least: float = 50.0
    most: float = 20_000.0
    seconds: float = 5.0
    precision: float = 0.05


@dataclass(frozen=True, slots=True)
class Slo:
    """What must hold at a rate: 99% of answers within `p99_ms`, few of them short of a stage, no error at all."""

    p99_ms: float = 50.0
    fallback_share: float = 0.01
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class ScenarioFile:
    """A whole file."""

    name: str
    users: Users
    requests: Requests
    arrivals: Arriving
    search: Search
    slo: Slo

    def options(self, token: str = "") -> argparse.Namespace:
        """What `Scenario` is made of."""
        users, asked = self.users, self.requests
        return argparse.Namespace(
            ids=users.ids, zipf=users.zipf, cold=users.cold, seed=users.seed, models=asked.models, k=asked.k,
            think=asked.think, token=token,
        )  # fmt: skip


_TABLES = {"users": Users, "requests": Requests, "arrivals": Arriving, "search": Search, "slo": Slo}


def read_scenario(path: Path) -> ScenarioFile:
    """Read a file; ids in a file are found from where the scenario lies. Raises ValueError naming file and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    unknown = sorted(set(document) - set(_TABLES))
    if unknown:
        raise ValueError(f"{path}: there is no table [{unknown[0]}]; there are: {', '.join(_TABLES)}")
    tables = {name: _table(path, name, kind, document.get(name, {})) for name, kind in _TABLES.items()}
    users = tables["users"]
    beside = path.parent / users.ids
    if beside.is_file():
        tables["users"] = Users(str(beside), users.zipf, users.cold, users.seed)
    found = ScenarioFile(path.stem, **tables)
    _check(path, found)
    return found


def _table(path: Path, name: str, kind: Any, given: object) -> Any:
    if not isinstance(given, dict):
        raise ValueError(f"{path}: {name} is no table")  # noqa: TRY004 - the file's fault
    known = {field.name for field in fields(kind)}
    types = get_type_hints(kind)
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{path}: [{name}] has no key {key!r}; it has: {', '.join(sorted(known))}")
        wanted = types[key]
        if choices := get_args(wanted):
            if value not in choices:
                raise ValueError(f"{path}: [{name}] {key}: one of {', '.join(choices)} (found {value!r})")
        elif not isinstance(value, (int, float) if wanted is float else wanted) or (
            isinstance(value, bool) is not (wanted is bool)
        ):
            raise ValueError(f"{path}: [{name}] {key}: {wanted.__name__} expected (found {value!r})")
    return kind(**cast("dict[str, Any]", given))


def _check(path: Path, found: ScenarioFile) -> None:
    search, arrivals, slo = found.search, found.arrivals, found.slo
    for said, holds in (
        ("[search] least and most must rise from above 0", 0 < search.least <= search.most),
        ("[search] seconds must be above 0", search.seconds > 0),
        ("[search] precision must be within 0.001..1", 0.001 <= search.precision <= 1),
        (
            "[arrivals] connections must be 1..most_connections",
            1 <= arrivals.connections <= arrivals.most_connections,
        ),
        ("[arrivals] patience_s must be above 0", arrivals.patience_s > 0),
        ("[slo] p99_ms must be above 0", slo.p99_ms > 0),
        ("[slo] fallback_share must be within 0..1", 0 <= slo.fallback_share <= 1),
        ("[slo] rate must not be negative", slo.rate >= 0),
    ):
        if not holds:
            raise ValueError(f"{path}: {said}")
