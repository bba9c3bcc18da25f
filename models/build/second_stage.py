"""The ranker's part of a build: two moments in time to learn from, the later one to stop by and be judged on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.build.assemble import assemble
from models.data.dataset import Dataset
from models.data.splits import Split, validation_split
from models.forked import Answer, answers
from models.ranker.config import Config
from models.ranker.report import report
from models.ranker.rows import Rows, Statics, joined, rows_of
from models.ranker.statics import item_statics, user_statics
from models.ranker.training import Ranker, fit, library_lacks, mean_contributions, telling
from models.ranker.two_stage import two_stage_model
from models.trained import TrainedModel
from service.bundle.reader import load_bundle
from service.bundle.two_stage import SourceSpec
from service.errors import InputError
from service.recommender.live import LiveBundle, go_live

NAME = "two_stage"
LEAST_USERS = 200
"""Held-out users of a moment with something of theirs in the pool; with fewer no order is learned."""
STOPPED_BY = 1_000
"""Users of the later moment that say when to stop, and which features to keep."""
SCOUTED = 2_000
"""Users of the earlier moment by whom features are chosen."""
COARSER = 1.5
"""How much larger steps are, and how many times fewer, while features are chosen."""
MOST_FEATURES = 48
"""What a request has the time to compute."""
_TOO_FEW = f"fewer than {LEAST_USERS} users have anything of what they went on to read among the candidates"


@dataclass(frozen=True, slots=True)
class Learned:
    """A ranker that never saw the validation's labels (`honest`), and one that learned from them too (`final`).

    contributions: mean |SHAP| by feature of `final`, the largest first. rows: what they were measured on. n_rows: what
    `final` learned from.
    """

    honest: TrainedModel
    final: Ranker
    sources: tuple[SourceSpec, ...]
    config: Config
    contributions: Mapping[str, float]
    rows: Rows
    n_rows: int

    def as_json(self) -> dict[str, Any]:
        """What was grown, of which sources, and what it listens to."""
        return {
            "library": self.final.library,
            "trees": self.final.rounds,
            "sources": [source.model_dump() for source in self.sources],
            "rows": self.n_rows,
            "mean_abs_shap": {name: round(value, 6) for name, value in self.contributions.items()},
        }

    def model(self, dataset: Dataset) -> TrainedModel:
        """Make the model that serves: the final trees, and the numbers as they stand after all events."""
        return two_stage_model(self.final, _statics(dataset), self.sources, self.config, self.contributions)


def lacks(models: Sequence[str], config: Config) -> str | None:
    """Say what a second stage lacks beforehand; None where it may be tried."""
    if not set(models) - {"popular"}:
        return "it ranks what other models retrieve, and only popular is built"
    return library_lacks(config)


def earlier_moment(split: Split, *, seed: int) -> Split | str:
    """Split once more what came before the later moment, or say in words what the data lacks for two of them."""
    earlier = validation_split(split.train, seed=seed)
    if min(_n_users(earlier), _n_users(split)) < LEAST_USERS:
        return f"fewer than {LEAST_USERS} users to learn an order from"
    return earlier


def learn(
    earlier: Split,
    past: Callable[[], Mapping[str, TrainedModel]],
    later: Split,
    models: Mapping[str, TrainedModel],
    quality: Mapping[str, float],
    config: Config,
    *,
    seed: int,
    progress: bool = False,
) -> Learned | str:
    """Learn to rank, or say in words what the data lacks for it.

    Two moments: what stands in `earlier.train`, with the models that `past` trains on it and that are let go once they
    were asked, and what stands in `later.train`, with `models`; what came after is in each split's `test`.
    The honest ranker learns from the earlier moment only; users of the later one say when to stop and which features
    to keep. The final one learns from both, with as many trees. `quality`, by model, puts the best source first.
    """
    config.check()
    sources = sources_of(models, quality, config)
    with _live(earlier, past(), seed) as live:
        learned = _rows(live, earlier, sources, config, seed=seed, progress=progress)
    with _live(later, models, seed) as live:
        stop = _rows(live, later, sources, config, seed=seed + 1, whole=True)
        if min(len(learned.groups), len(stop.groups)) < LEAST_USERS:
            return _TOO_FEW
        names = _telling(learned, stop, config, seed)
        recent = _rows(live, later, sources, config, seed=seed, names=names, progress=progress)
    if len(recent.groups) < LEAST_USERS:
        return _TOO_FEW
    learned, stop = learned.only(names), stop.only(names)
    ranker = fit(learned, config, seed=seed, stop=stop)
    both = joined([learned, recent])
    final = fit(both, config, seed=seed, rounds=ranker.rounds)
    honest = two_stage_model(ranker, _statics(later.train), sources, config, {})
    return Learned(honest, final, sources, config, mean_contributions(final, stop), stop, len(both))


def write_report(learned: Learned, path: Path) -> None:
    """Write an HTML page of what the final ranker listens to."""
    facts = {
        "library": learned.final.library,
        "trees": f"{learned.final.rounds}",
        "rows": f"{learned.n_rows:,}",
        "sources": ", ".join(source.model for source in learned.sources),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report(learned.contributions, "What the ranker listens to", facts), "utf-8")


def sources_of(
    models: Mapping[str, TrainedModel], quality: Mapping[str, float], config: Config
) -> tuple[SourceSpec, ...]:
    """Every model is a source, the best first."""
    names = sorted(models, key=lambda name: -quality.get(name, 0.0))
    return tuple(
        SourceSpec(
            model=name,
            quota=config.popular_quota if models[name].kind == "popular" else config.quota,
        )
        for name in names
    )


def _telling(past: Rows, stop: Rows, config: Config, seed: int) -> list[str]:
    """Try all features, and all but those that say little more than which item it is; name what tells the most.

    Fewer users and coarser steps than the ranker's own do for that. Raises InputError where nothing tells anything.
    """
    scouted = _some(past, SCOUTED, seed)
    coarse = replace(
        config,
        learning_rate=min(1.0, COARSER * config.learning_rate),
        rounds=max(1, round(config.rounds / COARSER)),
        patience=max(1, round(config.patience / COARSER)),
    )

    def tried(names: Sequence[str]) -> Answer:
        ranker = fit(scouted.only(names), coarse, seed=seed, stop=stop.only(names))
        return Answer({"score": ranker.score, "names": list(telling(ranker, scouted, MOST_FEATURES))})

    plain = [name for name in past.names if not name.startswith("item:")]
    found = [one.facts for one in answers([partial(tried, names) for names in (past.names, plain)])]
    names: list[str] = max(found, key=lambda facts: facts["score"])["names"]
    if not names:
        raise InputError("two_stage: no feature says anything of what is read next")
    return names


def _some(rows: Rows, users: int, seed: int) -> Rows:
    """Keep a seeded sample of the users."""
    kept = np.zeros(len(rows.groups), np.bool_)
    kept[np.random.default_rng(seed).permutation(len(kept))[:users]] = True
    return rows.select(kept)


def _rows(
    live: LiveBundle,
    split: Split,
    sources: Sequence[SourceSpec],
    config: Config,
    *,
    seed: int,
    whole: bool = False,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> Rows:
    return rows_of(
        live,
        split.test,
        sources,
        config.n_candidates,
        _statics(split.train),
        max_users=STOPPED_BY if whole else config.max_users,
        negatives=1.0 if whole else config.negatives,
        seed=seed,
        names=names,
        progress=progress,
    )


def _statics(dataset: Dataset) -> Statics:
    return Statics(item_statics(dataset), user_statics(dataset))


def _n_users(split: Split) -> int:
    return len(np.unique(split.test.user_rows))


@contextmanager
def _live(split: Split, models: Mapping[str, TrainedModel], seed: int) -> Iterator[LiveBundle]:
    """Take up a bundle of the split's train part; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="reco-rank-") as folder:
        written = assemble(
            Path(folder), split.train, models, default_model="popular", seed=seed, index="none"
        )
        yield go_live(load_bundle(written.path))
