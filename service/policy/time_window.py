"""From when until when a declared thing holds."""

from __future__ import annotations

import math
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator


class TimeWindow(BaseModel):
    """From `start` on and before `end`; without one there is no bound on that side."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.starts_at >= self.ends_at:
            raise ValueError("'end' is not after 'start'")
        return self

    @property
    def starts_at(self) -> float:
        """Unix time in seconds."""
        return -math.inf if self.start is None else self.start.timestamp()

    @property
    def ends_at(self) -> float:
        """Unix time in seconds; the first moment that is outside."""
        return math.inf if self.end is None else self.end.timestamp()
