"""Experiments: who gets which plan. Assigned once a request; what is assigned is what is served and what is logged."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prometheus_client import Counter

from service.bundle.ids import UNKNOWN
from service.domain import Clock, Exploration, Plan, Reranking, UserId
from service.errors import InputError
from service.policy.assignment import SPAN, place_of, seed_of
from service.policy.experiments_file import (
    LAYER_SALT,
    EligibleTable,
    ExperimentsFile,
    ExperimentTable,
    PlanTable,
    places,
)
from service.recommender.live import LiveBundle
from service.recommender.plan import plan_for
from service.telemetry import Telemetry

_MOST_KEPT = 4096
"""Combinations of treatments whose plans are kept."""

Say = Callable[..., None]


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """What one user gets: the plan, and experiment -> treatment. `header`: `experiment=treatment,…`."""

    plan: Plan
    treatments: Mapping[str, str]
    header: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Treatment:
    experiment: str
    name: str
    model: str | None
    n_candidates: int | None
    exploration: Exploration | None
    reranking: Reranking | None


@dataclass(frozen=True, slots=True)
class _Experiment:
    """An experiment ready to assign. It has the users whose place in the layer is in [begin, end)."""

    begin: int
    end: int
    starts_at: float
    ends_at: float
    eligible: Callable[[UserId, str], bool] | None
    seed: int
    cuts: tuple[int, ...]
    treatments: tuple[_Treatment, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    seed: int
    experiments: tuple[_Experiment, ...]


@dataclass(frozen=True, slots=True)
class _Bound:
    """The experiments over one live bundle, by the model that is asked for."""

    live: LiveBundle
    layers: Mapping[str, tuple[_Layer, ...]]
    assignments: dict[tuple[str, tuple[_Treatment, ...]], Assignment] = field(default_factory=dict)


class Experiments:
    """All experiments of one process. Call from the event loop only."""

    def __init__(
        self,
        declared: ExperimentsFile,
        telemetry: Telemetry,
        *,
        clock: Clock = time.time,
        say: Say | None = None,
    ) -> None:
        """`clock`: Unix time in seconds, by which experiments start and end."""
        self._declared, self._clock = declared.experiments, clock
        self._say = say or (lambda *_, **__: None)
        self._bound: _Bound | None = None
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._counter = Counter(
            "reco_experiment_assignments",
            "Requests by the treatment that answered.",
            ["experiment", "treatment"],
            registry=telemetry.registry,
        )

    def assign(self, user_id: UserId | None, model_name: str, live: LiveBundle) -> Assignment | None:
        """Assign a user who asks for a model; None when no experiment has them (and for nobody in particular)."""
        bound = self._bound
        if bound is None or bound.live is not live:
            bound = self.bind(live)
        layers = bound.layers.get(model_name)
        if not layers or user_id is None:
            return None
        chosen = _choose(layers, user_id, self._clock())
        if not chosen:
            return None
        assignment = bound.assignments.get((model_name, chosen))
        if assignment is None:
            assignment = _assignment(model_name, chosen, live)
            if len(bound.assignments) < _MOST_KEPT:
                bound.assignments[model_name, chosen] = assignment
        for treatment in chosen:
            self._counts[treatment.experiment, treatment.name] += 1
        return assignment

    def bind(self, live: LiveBundle) -> _Bound:
        """Make ready for a bundle. An experiment that it can't serve is left out whole, and said so."""
        if self._bound is not None and self._bound.live is live:
            return self._bound
        fit: dict[str, ExperimentTable] = {}
        for name, one in self._declared.items():
            fault = next(_faults(name, one, live), None)
            if fault is None:
                fit[name] = one
            else:
                self._say("ERROR", "an experiment is suspended: this bundle cannot serve it", reason=fault)
        layers = {name: _layers(name, fit, self._declared, live) for name in live.models}
        self._bound = _Bound(live, layers)
        return self._bound

    def flush_counts(self) -> None:
        """Hand what was counted to the metrics."""
        counts, self._counts = self._counts, defaultdict(int)
        for labels, count in counts.items():
            self._counter.labels(*labels).inc(count)


def check_experiments(declared: ExperimentsFile, path: Path | None, live: LiveBundle) -> None:
    """Raise InputError, naming file, table and key, for what this bundle cannot serve."""
    for name, one in declared.experiments.items():
        for fault in _faults(name, one, live):
            raise InputError(f"{path}: {fault}")
    for name, shadow in declared.shadows.items():
        if shadow.model not in live.models:
            raise InputError(f"{path}: [shadows.{name}] model: {_no_model(shadow.model, live)}")
        for fault in _cap_faults(shadow, live):
            raise InputError(f"{path}: [shadows.{name}] {fault}")


def _faults(name: str, one: ExperimentTable, live: LiveBundle) -> Iterator[str]:
    table = f"experiments.{name}"
    for asked in one.on or ():
        if asked not in live.models:
            yield f"[{table}] on: {_no_model(asked, live)}"
    for treatment, plan in one.treatments.items():
        if plan.model is not None and plan.model not in live.models:
            yield f"[{table}.treatments.{treatment}] model: {_no_model(plan.model, live)}"
        for fault in _cap_faults(plan, live):
            yield f"[{table}.treatments.{treatment}] {fault}"
    for segment in one.eligible.segments or ():
        if segment not in _segments(live):
            known = ", ".join(_segments(live)) or "none"
            yield f"[{table}.eligible] segments: bundle {live.bundle_id} has no segment {segment!r}; it has: {known}"


def _cap_faults(plan: PlanTable, live: LiveBundle) -> Iterator[str]:
    if plan.rerank is None:
        return
    cap = plan.rerank.cap
    read = {"rerank.cap.attribute": cap and cap.attribute, "rerank.attribute": plan.rerank.attribute}
    for key, attribute in read.items():
        if attribute is not None and attribute not in live.bundle.attributes:
            known = ", ".join(sorted(live.bundle.attributes)) or "none"
            yield f"{key}: bundle {live.bundle_id} has no attribute {attribute!r}; it has: {known}"


def _no_model(name: str, live: LiveBundle) -> str:
    return f"bundle {live.bundle_id} holds no model {name!r}; it holds: {', '.join(sorted(live.models))}"


def _segments(live: LiveBundle) -> list[str]:
    named: Any = live.bundle.models["popular"].entry.parameters.get("segments", [])
    return [str(segment) for segment in named] if isinstance(named, list | tuple) else []


def _layers(
    asked: str, fit: Mapping[str, ExperimentTable], declared: dict[str, ExperimentTable], live: LiveBundle
) -> tuple[_Layer, ...]:
    """Experiments on one requested model, by layer. Places are of the whole file: one that is left out moves nobody."""
    found: dict[str, list[_Experiment]] = {}
    for name, one in fit.items():
        if one.on is None or asked in one.on:
            found.setdefault(one.layer, []).append(_experiment(name, one, places(declared, name), live))
    return tuple(_Layer(seed_of(LAYER_SALT + layer), tuple(of_it)) for layer, of_it in found.items())


def _experiment(name: str, one: ExperimentTable, part: tuple[float, float], live: LiveBundle) -> _Experiment:
    begin, end = (min(round(edge * SPAN), SPAN) for edge in part)
    total = math.fsum(treatment.weight for treatment in one.treatments.values())
    weights = accumulate(treatment.weight for treatment in one.treatments.values())
    cuts = tuple(round(weight / total * SPAN) for weight in weights)[:-1]
    treatments = tuple(
        _Treatment(
            name, label, table.model, table.n_candidates,
            None if table.exploration is None else table.exploration.settings(),
            None if table.rerank is None else table.rerank.settings(),
        )
        for label, table in one.treatments.items()
    )  # fmt: skip
    eligible = _eligibility(one.eligible, live)
    return _Experiment(
        begin, end, one.starts_at, one.ends_at, eligible, seed_of(one.salt or name), cuts, treatments
    )


def _eligibility(table: EligibleTable, live: LiveBundle) -> Callable[[UserId, str], bool] | None:
    """Make the test of who may take part; None where everybody may."""
    tests: list[Callable[[UserId, str], bool]] = []
    if table.users is not None:
        named = frozenset(str(user) for user in table.users)
        tests.append(lambda _, user: user in named)
    if table.pattern is not None:
        pattern = re.compile(table.pattern)
        tests.append(lambda _, user: pattern.fullmatch(user) is not None)
    user_ids = live.bundle.user_ids
    if table.known is not None:
        warm = table.known == "warm"
        tests.append(lambda user_id, _: (user_ids.row_of(user_id) != UNKNOWN) == warm)
    if table.segments is not None:
        segments = _segments(live)
        codes = frozenset(segments.index(segment) for segment in table.segments)
        segment_of = live.bundle.models["popular"].arrays["user_segment"]

        def of_segment(user_id: UserId, _: str) -> bool:
            row = user_ids.row_of(user_id)
            return row != UNKNOWN and int(segment_of[row]) in codes

        tests.append(of_segment)
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda user_id, user: all(test(user_id, user) for test in tests)


def _choose(layers: tuple[_Layer, ...], user_id: UserId, now: float) -> tuple[_Treatment, ...]:
    """The user's treatments: at most one a layer."""
    user = str(user_id)
    chosen: tuple[_Treatment, ...] = ()
    for layer in layers:
        place = place_of(user, layer.seed)
        for one in layer.experiments:
            if one.begin <= place < one.end and one.starts_at <= now < one.ends_at:
                if one.eligible is None or one.eligible(user_id, user):
                    number = bisect_right(one.cuts, place_of(user, one.seed))
                    chosen = (*chosen, one.treatments[number])
                break
    return chosen


def _assignment(model_name: str, chosen: tuple[_Treatment, ...], live: LiveBundle) -> Assignment:
    """Put the treatments' parts of the plan together. No two of them set the same part: the file was checked."""
    model = next((one.model for one in chosen if one.model is not None), model_name)
    plan = plan_for(model, live)
    for one in chosen:
        if one.n_candidates is not None:
            plan = dataclasses.replace(plan, n_candidates=one.n_candidates)
        if one.exploration is not None:
            plan = dataclasses.replace(plan, exploration=one.exploration)
        if one.reranking is not None:
            plan = dataclasses.replace(plan, reranking=one.reranking)
    treatments = {one.experiment: one.name for one in chosen}
    header = ",".join(f"{experiment}={treatment}" for experiment, treatment in treatments.items())
    return Assignment(plan, MappingProxyType(treatments), header.encode())
