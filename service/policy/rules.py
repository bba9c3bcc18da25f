"""Rules of the business, as they hold now: pins, boosts and burials that begin and end by the clock."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain import Clock, Plan, Rule
from service.errors import InputError
from service.policy.experiments import Assignment
from service.policy.rules_file import RulesFile
from service.recommender.live import LiveBundle
from service.recommender.plan import plan_for

_MOST_KEPT = 4096
Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class _Now:
    """What holds until a moment, over one bundle. rules: by the model that is asked for, "" for every other."""

    live: LiveBundle
    until: float
    rules: dict[str, tuple[Rule, ...]]


class Rules:
    """All rules of one process. Call from the event loop only."""

    def __init__(self, declared: RulesFile, *, clock: Clock = time.time, say: Say | None = None) -> None:
        """`clock`: Unix time in seconds, by which rules start and end."""
        self._declared, self._clock, self._say = declared, clock, say or (lambda *_, **__: None)
        self._now: _Now | None = None
        self._applied: dict[tuple[str, Assignment | None], Assignment] = {}

    def applied(self, given: Assignment | None, model_name: str, live: LiveBundle) -> Assignment | None:
        """Add what holds now to what experiments decided; `given` itself where nothing does."""
        now, at = self._now, self._clock()
        if now is None or now.live is not live or at >= now.until:
            now = self._now = self._bound(live, at)
            self._applied = {}
        rules = now.rules.get(model_name, now.rules[""])
        if not rules:
            return given
        key = (model_name, given)
        found = self._applied.get(key)
        if found is None:
            found = self._with(rules, given, model_name, live)
            if len(self._applied) < _MOST_KEPT:
                self._applied[key] = found
        return found

    def on(self, plan: Plan, model_name: str, live: LiveBundle) -> Plan:
        """Add what holds now to a plan that no experiment had a part in."""
        found = self.applied(None, model_name, live)
        return plan if found is None else self._ruled(plan, found.plan.rules)

    def _with(
        self, rules: tuple[Rule, ...], given: Assignment | None, model_name: str, live: LiveBundle
    ) -> Assignment:
        if given is None:
            return Assignment(self._ruled(plan_for(model_name, live), rules), {}, b"")
        return dataclasses.replace(given, plan=self._ruled(given.plan, rules))

    def _ruled(self, plan: Plan, rules: tuple[Rule, ...]) -> Plan:
        # Exploration draws from the first n_candidates: a larger pool would be another policy.
        pool = plan.n_candidates if plan.exploration else max(plan.n_candidates, self._declared.n_candidates)
        return dataclasses.replace(plan, n_candidates=pool, rules=rules)

    def _bound(self, live: LiveBundle, at: float) -> _Now:
        tables = self._declared.rules
        if self._now is None or self._now.live is not live:
            for fault in _faults(self._declared, live):
                self._say("ERROR", "a rule finds no items: this bundle cannot apply it", reason=fault)
        edges = [edge for one in tables.values() for edge in (one.starts_at, one.ends_at) if edge > at]
        asked = {name for one in tables.values() for name in one.on or ()} | {""}
        holding = {name: one for name, one in tables.items() if one.starts_at <= at < one.ends_at}
        rules = {
            model: tuple(one.rule(name) for name, one in holding.items() if one.on is None or model in one.on)
            for model in asked
        }
        return _Now(live, min(edges, default=math.inf), rules)


def check_rules(declared: RulesFile, path: Path, live: LiveBundle) -> None:
    """Raise InputError, naming file, table and key, for what this bundle cannot apply."""
    for fault in _faults(declared, live):
        raise InputError(f"{path}: {fault}")


def _faults(declared: RulesFile, live: LiveBundle) -> list[str]:
    found: list[str] = []
    known_models: Any = sorted(live.models)
    for name, one in declared.rules.items():
        found += [
            f"[rules.{name}] on: bundle {live.bundle_id} holds no model {model!r}; it holds: {', '.join(known_models)}"
            for model in one.on or ()
            if model not in live.models
        ]
        if one.attribute is not None and one.attribute not in live.bundle.attributes:
            known = ", ".join(sorted(live.bundle.attributes)) or "none"
            found.append(
                f"[rules.{name}] attribute: bundle {live.bundle_id} has no attribute {one.attribute!r}; it has: {known}"
            )
    return found
