"""The ranker's part of a build: two moments in time to learn from, the later one to stop by and be judged on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.build.assemble import assemble
from models.data.dataset import Dataset
from models.data.splits import Split, validation_split
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
MOST_FEATURES = 48
"""What a request has the time to compute."""
Trainer = Callable[[Dataset], Mapping[str, TrainedModel]]


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


def learn(
    split: Split,
    models: Mapping[str, TrainedModel],
    quality: Mapping[str, float],
    train: Trainer,
    config: Config,
    *,
    seed: int,
    progress: bool = False,
) -> Learned | str:
    """Learn to rank, or say in words what the data lacks for it.

    Two moments: the sources trained on `split.train` (`models`) with what `split.test` holds, and, one split earlier,
    sources trained by `train` on the train part of `split.train`'s own validation split with its held-out part. The
    honest ranker learns from the earlier moment only; users of the later one say when to stop and which features to
    keep. The final one learns from both, with as many trees. `quality`, by model, puts the best source first.
    """
    config.check()
    earlier = validation_split(split.train, seed=seed)
    if min(_n_users(earlier), _n_users(split)) < LEAST_USERS:
        return f"fewer than {LEAST_USERS} users to learn an order from"
    sources = sources_of(models, quality, config)
    with _live(earlier, train(earlier.train), seed) as live:
        past = _rows(live, earlier, sources, config, seed=seed, progress=progress)
    with _live(split, models, seed) as live:
        recent = _rows(live, split, sources, config, seed=seed, progress=progress)
        stop = _rows(live, split, sources, config, seed=seed + 1, whole=True)
    if min(len(past.groups), len(recent.groups), len(stop.groups)) < LEAST_USERS:
        return (
            f"fewer than {LEAST_USERS} users have anything of what they went on to read among the candidates"
        )
    ranker = _chosen(past, stop, config, seed)
    both = joined([past, recent]).only(ranker.names)
    final = fit(both, config, seed=seed, rounds=ranker.rounds)
    contributions = mean_contributions(final, stop)
    honest = two_stage_model(ranker, _statics(split.train), sources, config, mean_contributions(ranker, stop))
    return Learned(honest, final, sources, config, contributions, stop.only(final.names), len(both))


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


def _chosen(past: Rows, stop: Rows, config: Config, seed: int) -> Ranker:
    """Try all features, and all but those that say little more than which item it is; keep what tells the most."""
    scouted = _some(past, SCOUTED, seed)
    plain = [name for name in past.names if not name.startswith("item:")]
    tried = [
        fit(scouted.only(names), config, seed=seed, stop=stop.only(names))
        for names in (list(past.names), plain)
    ]
    best = max(tried, key=lambda ranker: ranker.score)
    names = telling(best, scouted, MOST_FEATURES)
    if not names:
        raise InputError("two_stage: no feature says anything of what is read next")
    return fit(past.only(names), config, seed=seed, stop=stop.only(names))


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
