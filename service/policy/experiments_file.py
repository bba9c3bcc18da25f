"""The file of experiments: a TOML document, read whole and checked before anything is served by it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from service.domain import AttributeCap, Exploration, Reranking
from service.errors import InputError
from service.policy.time_window import TimeWindow

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Names go into a header and into metric labels as they are."""
UserName = Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(min_length=1, max_length=256)]
Salt = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LAYER_SALT = "layer/"
"""A layer divides users by this and its name."""
MOST_EXPLORED = 1000
"""Candidates to explore among: so many cost 0.15 ms."""
MOST_RERANKED = 200
"""Candidates to rerank: the eigenvalues of so many cost some milliseconds, and the cost grows with their cube."""
_STRENGTHS = {"epsilon": "epsilon", "softmax": "temperature", "newcomers": "share"}
_PLAN_KEYS = ("model", "n_candidates", "exploration", "rerank")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExplorationTable(_Table):
    """What is left to chance: see `service.domain.Exploration`."""

    kind: Literal["epsilon", "softmax", "newcomers"]
    epsilon: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature: Annotated[float, Field(ge=0.01, le=100)] | None = None
    share: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _its_own_strength(self) -> Self:
        given = {name for name in _STRENGTHS.values() if getattr(self, name) is not None}
        wanted = _STRENGTHS[self.kind]
        if given != {wanted}:
            raise ValueError(f"kind {self.kind!r} takes '{wanted}' and nothing else")
        return self

    def settings(self) -> Exploration:
        """As the line takes it."""
        strength = getattr(self, _STRENGTHS[self.kind])
        assert strength is not None  # the validator saw to it
        return Exploration(self.kind, strength)


class CapTable(_Table):
    """At most so many places a value."""

    attribute: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    most: Annotated[int, Field(ge=1, le=1000)]


class RerankTable(_Table):
    """How candidates are put in order: see `service.domain.Reranking`."""

    method: Literal["mmr", "dpp", "calibrated"]
    relevance: Annotated[float, Field(ge=0, le=1)] = 0.7
    window: Annotated[int, Field(ge=2, le=100)] | None = None
    cap: CapTable | None = None
    attribute: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None

    @model_validator(mode="after")
    def _what_the_method_takes(self) -> Self:
        if self.method != "dpp" and self.window is not None:
            raise ValueError(f"method {self.method!r} takes no 'window'")
        if (self.method == "calibrated") != (self.attribute is not None):
            raise ValueError("method 'calibrated' needs 'attribute', and no other takes it")
        if self.method == "dpp" and self.relevance > 0.99:
            raise ValueError("method 'dpp' takes a 'relevance' of at most 0.99")
        return self

    def settings(self) -> Reranking:
        """As the line takes it."""
        cap = None if self.cap is None else AttributeCap(self.cap.attribute, self.cap.most)
        return Reranking(self.method, self.relevance, self.window or 10, cap, self.attribute or "")


class PlanTable(_Table):
    """What of the plan is decided; the rest stays as it is for everybody."""

    model: Name | None = None
    n_candidates: Annotated[int, Field(ge=1, le=10_000)] | None = None
    exploration: ExplorationTable | None = None
    rerank: RerankTable | None = None

    @model_validator(mode="after")
    def _a_pool_to_explore(self) -> Self:
        if self.exploration is not None and self.n_candidates is None:
            raise ValueError("'exploration' needs 'n_candidates': how many of the best may be shown")
        if self.exploration is not None and (self.n_candidates or 0) > MOST_EXPLORED:
            raise ValueError(f"'exploration' takes at most {MOST_EXPLORED} 'n_candidates'")
        return self

    @model_validator(mode="after")
    def _a_pool_to_rerank(self) -> Self:
        if self.rerank is None:
            return self
        if self.n_candidates is None:
            raise ValueError("'rerank' needs 'n_candidates': how many of the best are put in order")
        if self.n_candidates > MOST_RERANKED:
            raise ValueError(f"'rerank' takes at most {MOST_RERANKED} 'n_candidates'")
        if self.exploration is not None and self.exploration.kind == "softmax":
            raise ValueError(
                "'rerank' goes with exploration of kind 'epsilon' or 'newcomers': 'softmax' orders by score again"
            )
        return self


class TreatmentTable(PlanTable):
    """One arm of an experiment."""

    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0


class EligibleTable(_Table):
    """Who may take part: all that is given must hold."""

    users: Annotated[list[UserName], Field(min_length=1, max_length=100_000)] | None = None
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    segments: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    known: Literal["warm", "cold"] | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value


class ExperimentTable(TimeWindow):
    """One experiment."""

    control: Name
    treatments: Annotated[dict[Name, TreatmentTable], Field(min_length=2, max_length=32)]
    layer: Name = "main"
    salt: Salt | None = None
    on: Annotated[list[Name], Field(min_length=1, max_length=100)] | None = None
    traffic: Annotated[float, Field(gt=0, le=1)] = 1.0
    traffic_from: Annotated[float, Field(ge=0, lt=1)] | None = None
    eligible: EligibleTable = EligibleTable()

    @field_validator("salt")
    @classmethod
    def _not_a_layers(cls, value: str | None) -> str | None:
        if value is not None and value.startswith(LAYER_SALT):
            raise ValueError(f"a salt that begins with {LAYER_SALT!r} may divide users as a layer does")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.control not in self.treatments:
            raise ValueError(f"'control' names no treatment: {self.control!r}")
        return self

    def decides(self) -> set[str]:
        """Keys of the plan that some treatment sets."""
        return {
            key for key in _PLAN_KEYS for one in self.treatments.values() if getattr(one, key) is not None
        }

    def meets(self, other: ExperimentTable) -> bool:
        """Whether some request, at some time, is one that both apply to."""
        in_time = self.starts_at < other.ends_at and other.starts_at < self.ends_at
        return in_time and (self.on is None or other.on is None or not set(self.on).isdisjoint(other.on))


class ShadowTable(PlanTable):
    """A plan that answers nobody: it runs after an answer was sent, and the two are compared."""

    model: Name
    on: Annotated[list[Name], Field(min_length=1, max_length=100)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class ExperimentsFile(_Table):
    """The whole document."""

    experiments: Annotated[dict[Name, ExperimentTable], Field(max_length=100)] = {}
    shadows: Annotated[dict[Name, ShadowTable], Field(max_length=8)] = {}


def read_experiments(path: Path) -> ExperimentsFile:
    """Read and check the file. Raises InputError naming file, table and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"RECO_EXPERIMENTS={path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    try:
        read = ExperimentsFile.model_validate(document)
    except ValidationError as error:
        fault: Any = error.errors(include_url=False)[0]
        reason = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where_in(fault['loc'], document)}: {reason}") from None
    for (name, one), (other_name, other) in combinations(read.experiments.items(), 2):
        reason = _quarrel(one, other, read.experiments, (name, other_name))
        if reason:
            raise InputError(f"{path}: [experiments.{other_name}] {reason}")
    for name, one in read.experiments.items():
        begin, end = places(read.experiments, name)
        if end > 1 + 1e-9:
            raise InputError(
                f"{path}: [experiments.{name}] traffic: layer {one.layer!r} has no room for {begin:g} to {end:g}: "
                "the traffic of a layer is at most 1"
            )
    return read


def places(experiments: dict[str, ExperimentTable], name: str) -> tuple[float, float]:
    """An experiment's part of its layer, within 0 and 1: after the one before it in the file, unless it says where."""
    end = 0.0
    for other, one in experiments.items():
        if one.layer == experiments[name].layer:
            begin = end if one.traffic_from is None else one.traffic_from
            end = begin + one.traffic
            if other == name:
                return begin, end
    raise KeyError(name)


def _quarrel(
    one: ExperimentTable, other: ExperimentTable, all_of: dict[str, ExperimentTable], names: tuple[str, str]
) -> str | None:
    """Why two experiments can't run beside each other; None when they can."""
    first, second = names
    if one.layer != other.layer and (one.salt or first) == (other.salt or second):
        return f"salt: it divides users as experiment {first!r} of another layer does"
    if not one.meets(other):
        return None
    if one.layer == other.layer:
        (begin, end), (other_begin, other_end) = places(all_of, first), places(all_of, second)
        if begin < other_end - 1e-9 and other_begin < end - 1e-9:
            return f"traffic_from: it shares users with experiment {first!r} of the same layer"
        return None
    both = sorted(one.decides() & other.decides())
    if both:
        return (
            f"treatments: both it and experiment {first!r} decide {both[0]!r}; "
            "experiments that decide the same belong in one layer"
        )
    return None


def where_in(location: Iterable[str | int], document: dict[str, Any]) -> str:
    """A place as it is written in TOML: the table in brackets, then the key."""
    parts = [part for part in location if part not in ("[key]",)]
    tables: list[str] = []
    node: Any = document
    for part in parts:
        node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            break
        tables.append(str(part))
    keys = ".".join(str(part) for part in parts[len(tables) :] if part not in ("int", "constrained-str"))
    return " ".join(filter(None, (f"[{'.'.join(tables)}]" if tables else "", keys))) or "the document"
