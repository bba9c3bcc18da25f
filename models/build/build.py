"""A build, as a straight line: read, split, tune, validate through the serving line, refit, bundle, publish."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.build import second_stage
from models.build.assemble import Assembled, assemble
from models.build.avatar_view import AvatarView, look
from models.build.index import IndexChoice
from models.build.limits import Limits
from models.build.recipes import RECIPES, Effort
from models.build.side_by_side import OnTrial, at_once, settled, trained, tuned
from models.build.steps import Steps
from models.build.threads import threads_for
from models.data.avatars import WithAvatars, add_avatars
from models.data.dataset import Dataset
from models.data.read import read_dataset
from models.data.splits import Split, validation_split
from models.evaluation.run import Evaluation, Examiner
from models.forked import peak_memory_mb
from models.ranker import config as ranker
from models.trained import TrainedModel
from service.bundle.manifest import RetrieverName
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import ItemId
from service.errors import InputError
from service.recommender.live import go_live

CHOSEN_BY = "NDCG@10"
MAX_VALIDATED = 20_000
"""Users replayed through the serving line for the validation metrics; more are sampled."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to build. `models` None: all that the data supports. `configs`: settings given, hence not tuned."""

    data: Path
    out: Path
    models: tuple[str, ...] | None = None
    configs: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    effort: Effort = "quick"
    reader: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    avatars: Mapping[str, tuple[ItemId, ...]] = field(default_factory=dict)
    index: IndexChoice = "auto"
    publish: bool = True
    minutes: float | None = None
    """About what the whole may take: searches end early, and models that keep to a time get less; None: no limit."""


@dataclass(frozen=True, slots=True)
class Built:
    """The bundle, and what a person or a script wants to know of its making. Metrics are the validation's."""

    path: Path
    default_model: str
    evaluations: Mapping[str, Evaluation]
    configs: Mapping[str, Any]
    dropped: Mapping[str, int]
    seconds: Mapping[str, float]
    query_microseconds: Mapping[str, Mapping[RetrieverName, float]]
    avatars: Mapping[str, AvatarView]
    ranker: second_stage.Learned | str
    """The second stage, or why there is none."""

    @property
    def bundle_id(self) -> str:
        """Identity of the bundle's content."""
        return self.path.name

    def as_json(self) -> dict[str, Any]:
        """One JSON-ready object."""
        return {
            "bundle": self.bundle_id,
            "path": str(self.path),
            "default": self.default_model,
            "seconds": dict(self.seconds),
            "metrics": {name: manifest_metrics(found) for name, found in self.evaluations.items()},
            "dropped": dict(self.dropped),
            "configs": {name: asdict(config) for name, config in self.configs.items()},
            "query_microseconds": {name: dict(times) for name, times in self.query_microseconds.items()},
            "avatars": {name: asdict(view) for name, view in self.avatars.items()},
            "ranker": self.ranker if isinstance(self.ranker, str) else self.ranker.as_json(),
            "peak_memory_mb": peak_memory_mb(),
        }


def build(
    order: Order,
    *,
    progress: bool = True,
    on_trial: OnTrial = lambda _name, _trial: None,
    steps: Steps | None = None,
) -> Built:
    """Build and, unless told not to, publish. The same data, seed and settings give the same bundle id.

    The metrics in the manifest are of the same settings trained on the training part of the validation split and
    asked through the serving line; the bundle's models are then refit on everything. `default` is the model whose
    CHOSEN_BY is highest. `popular` is always there: it is what every answer falls back to.
    Raises InputError for data or settings that nothing can be built from; BundleRefused if the written bundle
    fails its own verification.
    """
    steps = steps or Steps(shown=progress)
    with steps.step("read", str(order.data)):
        dataset = read_dataset(order.data, reader=order.reader, columns=order.columns, progress=progress)
    _refuse_impossible(dataset, order.data)
    with_avatars = add_avatars(dataset, order.avatars) if order.avatars else WithAvatars(dataset, {})
    with threads_for(len(dataset)):
        return _built(with_avatars, order, steps, progress, on_trial)


def _built(data: WithAvatars, order: Order, steps: Steps, progress: bool, on_trial: OnTrial) -> Built:
    dataset = data.dataset
    names = chosen_models(dataset, order.models)
    ranking = wanted_ranker(names, order)
    with steps.step(
        "split", f"{len(dataset):,} events, {dataset.n_users:,} users, {dataset.n_items:,} items"
    ):
        split = validation_split(dataset, seed=order.seed)
    limits = Limits.within(order.minutes, names, trainings=2 if ranking is None else 3)
    with steps.step("tune", f"{', '.join(names)} ({order.effort})"):
        given = {name: order.configs[name] for name in names if name in order.configs}
        configs = tuned(
            names, dataset, split, given, order.effort, seed=order.seed, on_trial=on_trial, limits=limits
        )
    with steps.step(
        "validate", f"{len(split.test):,} held-out events ({split.name}), through the serving line"
    ):
        earlier = trained([split.train], [configs], seed=order.seed, progress=progress)[0]
        evaluations = _validated(split, earlier, list(earlier), order.seed, progress)
    then = settled(configs, earlier)
    before = "not wanted" if ranking is None else second_stage.earlier_moment(split, seed=order.seed)
    ahead: list[dict[str, TrainedModel]] | None = None
    if isinstance(before, Split) and at_once(dataset) > 1:  # else in turn: memory is dear
        with steps.step("train", "on all events, and on those before the earlier moment"):
            ahead = trained([before.train, dataset], [then, then], seed=order.seed, progress=progress)
    ranked: second_stage.Learned | str = before if isinstance(before, str) else ""
    if ranking is not None:
        with steps.step("rank", "candidates of all models, by two earlier moments"):
            if isinstance(before, Split):

                def past() -> Mapping[str, TrainedModel]:
                    if ahead is not None:
                        return ahead[0]
                    return trained([before.train], [then], seed=order.seed, progress=progress)[0]

                quality = {name: found.metrics[CHOSEN_BY] for name, found in evaluations.items()}
                ranked = second_stage.learn(
                    before, past, split, earlier, quality, ranking, seed=order.seed, progress=progress
                )
            if isinstance(ranked, second_stage.Learned):
                both = {**earlier, second_stage.NAME: ranked.honest}
                evaluations |= _validated(split, both, [second_stage.NAME], order.seed, progress)
            elif second_stage.NAME in (order.models or ()):
                raise InputError(f"--models {second_stage.NAME}: not with this data: {ranked}")
    del earlier
    default_model = best_model(evaluations)
    with steps.step("train", "on all events"):
        models = ahead[1] if ahead else trained([dataset], [then], seed=order.seed, progress=progress)[0]
        if isinstance(ranked, second_stage.Learned):
            models[second_stage.NAME] = ranked.model(dataset)
    with steps.step("bundle", "vectors, index, files"):
        metrics = {name: manifest_metrics(found) for name, found in evaluations.items()}
        assembled = _assembled(order, dataset, models, default_model, metrics)
    with steps.step("verify", assembled.path.name):
        avatars = look(go_live(load_bundle(assembled.path)), data.user_ids)
    if order.publish:
        with steps.step("publish", str(order.out)):
            ArtifactStore(order.out).publish(assembled.path.name)
    return Built(
        path=assembled.path,
        default_model=default_model,
        evaluations=evaluations,
        configs=configs,
        dropped=dataset.dropped,
        seconds=steps.rounded(),
        query_microseconds=assembled.microseconds,
        avatars=avatars,
        ranker=ranked,
    )


def chosen_models(dataset: Dataset, wanted: Sequence[str] | None) -> list[str]:
    """Names to train, in the order of RECIPES: those wanted and `popular`, or all that the data supports and that are
    not trained on request only.

    A second stage alone wants all of them. Raises InputError for an unknown name, or for one that the data can't
    support.
    """
    if wanted is not None:
        first = [name for name in wanted if name != second_stage.NAME]
        wanted = first if first or not wanted else None
    if wanted is None:
        return [
            name
            for name, recipe in RECIPES.items()
            if not recipe.on_request and recipe.lacks(dataset) is None
        ]
    for name in wanted:
        if name not in RECIPES:
            raise InputError(f"--models: no such model {name!r} (known: {', '.join(RECIPES)})")
        if reason := RECIPES[name].lacks(dataset):
            raise InputError(f"--models {name}: not with this data: {reason}")
    return [name for name in RECIPES if name in {*wanted, "popular"}]


def wanted_ranker(names: Sequence[str], order: Order) -> ranker.Config | None:
    """Say how to train the second stage; None where it is neither wanted nor possible.

    Raises InputError where it is named and something is lacking.
    """
    config = order.configs.get(second_stage.NAME) or ranker.Config()
    named = order.models is not None and second_stage.NAME in order.models
    if order.models is not None and not named:
        return None
    if reason := second_stage.lacks(names, config):
        if named:
            raise InputError(f"--models {second_stage.NAME}: {reason}")
        return None
    return config


def best_model(evaluations: Mapping[str, Evaluation]) -> str:
    """The model of the highest CHOSEN_BY, the earlier among equals; `popular` where nothing was validated."""
    if not evaluations:
        return "popular"
    return max(evaluations, key=lambda name: evaluations[name].metrics[CHOSEN_BY])


def manifest_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The metrics to six decimals, and how many users they are of."""
    metrics = {name: round(float(value), 6) for name, value in evaluation.metrics.items()}
    return {**metrics, "users": float(evaluation.users)}


def _refuse_impossible(dataset: Dataset, path: Path) -> None:
    if len(dataset) == 0:
        raise InputError(f"{path}: no interactions: there is nothing to learn from")
    if dataset.n_items < 2:
        raise InputError(f"{path}: only {dataset.n_items} item: there is nothing to rank")


def _validated(
    split: Split, models: Mapping[str, TrainedModel], names: Sequence[str], seed: int, progress: bool
) -> dict[str, Evaluation]:
    """Examine some of the models, all of which are in the bundle that is asked."""
    test = split.test
    users = np.unique(test.user_rows)
    if len(users) == 0:
        return {}
    if len(users) > MAX_VALIDATED:
        users = np.random.default_rng(seed).choice(users, MAX_VALIDATED, replace=False)
        test = test.select(np.isin(test.user_rows, users))
    with tempfile.TemporaryDirectory(prefix="reco-validate-") as folder:
        # Exact search: what an index loses is measured for the final bundle, by itself.
        written = assemble(
            Path(folder), split.train, models, default_model="popular", seed=seed, index="none"
        )
        live = go_live(load_bundle(written.path))
        examiner = Examiner.of(
            live.bundle, test.user_ids.take(test.user_rows), test.item_ids.take(test.item_rows)
        )
        return {name: examiner.examine(live, name, [10], progress=progress) for name in names}


def _assembled(
    order: Order,
    dataset: Dataset,
    models: Mapping[str, TrainedModel],
    default_model: str,
    metrics: Mapping[str, Mapping[str, float]],
) -> Assembled:
    return assemble(
        order.out,
        dataset,
        models,
        default_model=default_model,
        metrics=metrics,
        seed=order.seed,
        index=order.index,
    )
