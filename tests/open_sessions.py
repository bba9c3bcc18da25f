"""Logs of a simulated audience that a service explored, beside what any plan would truly have earned there.

A contextual bandit, exactly: the moments at which listeners ask are drawn before any plan is, so that no plan decides
whom it will answer next. Each listener has one to three sessions open at one moment, an interest and a first track
each; all ask at that moment, and what they then hear comes later. A log draws listeners with all their moments,
independently and with replacement, from a finite population, and so the truth is a mean over it, without noise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from factories import trained_models, write_tiny_bundle
from made_logs import START_MS, Record, feedback, slate

from loadtest.simulator.audience import Listener, draw_audience
from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.generator import generate_catalogue
from loadtest.simulator.session import Session
from models.analysis.explored import RewardModel, explored_slots
from models.analysis.ope import Evaluation, Interaction, evaluate
from models.analysis.target import of_plan
from models.data.dataset import Dataset
from models.evaluation.opening import open_published
from models.events_table import SCHEMA, row_of
from service.bundle.ids import IntIds
from service.domain import Deadline, Plan, Query, Slate
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend

TRACKS, ARTISTS, TRAINED = 100, 25, 400
LIKED = 0.5
"""A track is liked that is heard for so much of it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A session that has just been opened, and asks."""

    listener: Listener
    interest: int
    first: int


@dataclass(frozen=True, slots=True)
class Visitor:
    """A listener with what the service may know of them, oldest first, and their open sessions."""

    liked: tuple[int, ...]
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """Question: what would `target` have earned where `logging` played, with slates of k places."""

    name: str
    logging: Plan
    target: Plan
    k: int = 1
    interaction: Interaction = "independent"


class _Told:
    """A session's chance that has been told how the session opens; patience plays no part."""

    def __init__(self, moment: Moment) -> None:
        self._choices = iter((moment.interest, moment.first))

    def choice(self, a: Sequence[int], /) -> int:
        found = next(self._choices)
        assert found in a
        return found

    def random(self) -> float:
        return 0.0


class World:
    """A small catalogue, a bundle learnt from a log of any tracks, and a population that the bundle does not know."""

    def __init__(self, folder: Path, *, population: int, seed: int = 1) -> None:
        self.catalogue: Catalogue = generate_catalogue(TRACKS, ARTISTS, seed)
        self._truths: dict[tuple[Plan, int], float] = {}
        rng = random.Random(seed)
        trained, strangers = (
            draw_audience(n, TRACKS, seed + place) for place, n in enumerate((TRAINED, population))
        )
        dataset = self._dataset([self._past(listener, rng) for listener in trained])
        made = trained_models(dataset)
        write_tiny_bundle(
            folder, dataset=dataset, models={name: made[name] for name in ("popular", "als", "knn")}
        )
        self.live: LiveBundle = open_published(folder)
        self.population = [self._visitor(listener, rng) for listener in strangers]

    def heard(self, moment: Moment, tracks: Sequence[int]) -> list[float]:
        """Shares heard of tracks played one after the other, all of them."""
        session = Session(moment.listener, self.catalogue, _Told(moment))
        return [session.listen(track).time for track in tracks]

    def log(self, plan: Plan, k: int, listeners: int, seed: int) -> list[Record]:
        """Draw listeners, answer their sessions by the plan, and note what they heard. Nobody is drawn to be who they
        were: a listener who is drawn twice is two users."""
        rng = np.random.default_rng([seed, listeners, k])
        records: list[Record] = []
        for number, place in enumerate(rng.integers(len(self.population), size=listeners).tolist()):
            user, visitor = TRAINED + number, self.population[place]
            records += [
                feedback(f"{user}-past-{n}", "view", user, START_MS - 1000 + n, item_id=track, value=1.0)
                for n, track in enumerate(visitor.liked)
            ]
            for n, moment in enumerate(visitor.moments):
                request = f"{user}-{n}"
                query = Query(user, k, recent=visitor.liked, seed=int(rng.integers(2**63)))
                shown = recommend(query, plan, self.live, Deadline.none())
                tracks = [int(item) for item in shown.item_ids]
                more: dict[str, Any] = {
                    "source": shown.source,
                    "propensities": list(shown.propensities or ()),
                }
                records.append(slate(request, user, START_MS, tracks, **more))
                records += [
                    feedback(f"{request}/{track}", "view", user, START_MS + 1, item_id=track, value=share,
                             request_id=request)
                    for track, share in zip(tracks, self.heard(moment, tracks), strict=True)
                ]  # fmt: skip
        return records

    def truth(self, plan: Plan, k: int) -> float:
        """Reward a slate that the plan earns from the population: every slate it may show, times how likely it is."""
        if (plan, k) not in self._truths:
            certain = replace(plan, exploration=None)
            earned, moments = 0.0, 0
            for visitor in self.population:
                wide = Query(None, max(k, plan.n_candidates), recent=visitor.liked)
                slates = list(slates_of(plan, recommend(wide, certain, self.live, Deadline.none()), k))
                assert abs(sum(p for p, _ in slates) - 1) < 1e-9
                for moment in visitor.moments:
                    moments += 1
                    earned += sum(p * sum(self.heard(moment, tracks)) for p, tracks in slates)
            self._truths[plan, k] = earned / moments
        return self._truths[plan, k]

    def evaluated(self, case: Case, listeners: int, seed: int) -> Evaluation:
        """Log one audience, and estimate the target from it as `reco experiment ope` does."""
        records = self.log(case.logging, case.k, listeners, seed)
        events = pl.DataFrame([row_of(record) for record in records], schema=SCHEMA).lazy()
        explored = explored_slots(events, "time")
        model = RewardModel(explored.slots)
        target = of_plan(case.target, events, explored, model, self.live)
        return evaluate(explored, target, interaction=case.interaction)

    def _past(self, listener: Listener, rng: random.Random) -> list[int]:
        """What they liked of a session to which any tracks were played."""
        session = Session(listener, self.catalogue, rng)
        while not session.over:
            session.listen(rng.randrange(TRACKS))
        return list(dict.fromkeys(track for track, time in session.played if time >= LIKED))

    def _visitor(self, listener: Listener, rng: random.Random) -> Visitor:
        past = self._past(listener, rng)
        opened = [Session(listener, self.catalogue, rng) for _ in range(rng.randint(1, 3))]
        moments = tuple(Moment(listener, one.interest, one.played[0].track) for one in opened)
        firsts = [moment.first for moment in moments]
        return Visitor(tuple(dict.fromkeys(track for track in (*past, *firsts))), moments)

    def _dataset(self, pasts: list[list[int]]) -> Dataset:
        item_rows = np.array([track for past in pasts for track in past], np.int32)
        n = len(item_rows)
        return Dataset(
            name="any tracks",
            user_ids=IntIds(np.arange(len(pasts))),
            item_ids=IntIds(np.arange(TRACKS)),
            user_rows=np.repeat(np.arange(len(pasts), dtype=np.int32), [len(past) for past in pasts]),
            item_rows=item_rows,
            weights=np.ones(n, np.float32),
            times=np.arange(n, dtype=np.int64),
            time_kind="timestamp",
            items=pl.DataFrame({"title": self.catalogue.titles}),
            fingerprint="any tracks",
        )


def slates_of(plan: Plan, ranked: Slate, k: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Every slate that a plan may show with its probability, by the formulas of docs/experiments.md.

    ranked: its answer with nothing left to chance, as long as its pool. Written apart from the code under test.
    """
    tracks = [int(item) for item in ranked.item_ids]
    settings = plan.exploration
    if settings is None:
        yield 1.0, tuple(tracks[:k])
        return
    pool = min(max(k, plan.n_candidates), ranked.n_personal)
    assert pool >= k, "no place is the fallback's"
    scores = np.array(ranked.scores[:pool], np.float64)
    z = (scores - scores.mean()) / (scores.std() or 1.0)  # all 0 where they don't differ

    def further(left: list[int], places: int) -> Iterator[tuple[float, tuple[int, ...]]]:
        if not places:
            yield 1.0, ()
            return
        if settings.kind == "epsilon":
            chances = [settings.strength / len(left)] * len(left)
            chances[0] += 1 - settings.strength
        else:
            odds = np.exp((z[left] - z[left].max()) / settings.strength)
            chances = (odds / odds.sum()).tolist()
        for n, chance in enumerate(chances):
            for p, rest in further(left[:n] + left[n + 1 :], places - 1):
                yield chance * p, (tracks[left[n]], *rest)

    yield from further(list(range(pool)), k)
