"""The file of rules: a TOML document, read whole and checked before anything is served by it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from service.domain import Rule
from service.errors import InputError
from service.policy.experiments_file import Name, where_in
from service.policy.time_window import TimeWindow

MOST_WEIGHED = 1000
"""Candidates that rules may move."""
_Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Item = Annotated[int, Field(ge=0)] | _Text


class RuleTable(TimeWindow):
    """One rule: what it does, to which items, when."""

    action: Literal["pin", "boost", "bury"]
    attribute: _Text | None = None
    values: Annotated[list[_Text], Field(min_length=1, max_length=1000)] | None = None
    items: Annotated[list[_Item], Field(min_length=1, max_length=1000)] | None = None
    strength: Annotated[float, Field(gt=0, le=100)] | None = None
    most: Annotated[int, Field(ge=1, le=100)] | None = None
    on: Annotated[list[Name], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.items is None) == (self.attribute is None):
            raise ValueError("give 'items', or 'attribute' and 'values'")
        if (self.attribute is None) != (self.values is None):
            raise ValueError("'attribute' and 'values' go together")
        if self.action == "pin" and self.strength is not None:
            raise ValueError("action 'pin' takes 'most' and no 'strength'")
        if self.action != "pin" and self.most is not None:
            raise ValueError(f"action {self.action!r} takes 'strength' and no 'most'")
        return self

    def rule(self, name: str) -> Rule:
        """As the line takes it."""
        return Rule(
            name,
            self.action,
            attribute=self.attribute or "",
            values=tuple(self.values or ()),
            items=tuple(self.items or ()),
            strength=self.strength or 1.0,
            most=self.most or 1,
        )


class RulesFile(BaseModel):
    """The whole document. n_candidates: how many of the best may be moved; a plan that has more keeps them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    n_candidates: Annotated[int, Field(ge=1, le=MOST_WEIGHED)] = 100
    rules: Annotated[dict[Name, RuleTable], Field(max_length=100)] = {}


def read_rules(path: Path) -> RulesFile:
    """Read and check the file. Raises InputError naming file, table and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"RECO_RULES={path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    try:
        return RulesFile.model_validate(document)
    except ValidationError as error:
        fault: Any = error.errors(include_url=False)[0]
        reason = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where_in(fault['loc'], document)}: {reason}") from None
