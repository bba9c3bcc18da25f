"""Train the two towers and hand them over: vectors of items and users, and the user tower as ONNX."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.build.scoring import Exam, ndcg
from models.data.dataset import Dataset
from models.dssm.config import Config
from models.dssm.holdout import hold_out
from models.dssm.inputs import item_features, user_features
from models.dssm.newcomers import Newcomers, compare, sample
from models.dssm.towers import Assembly, ForUsers, Inputs, put_together
from models.dssm.windows import Histories
from models.history import unique_history
from models.towers.checkpoints import checkpoint_of
from models.towers.export import exported
from models.towers.loop import Course, Plateau, Schedule, fit
from models.towers.threads import torch_threads_for
from models.trained import TrainedModel

REFIT_FROM = 0.02
"""Share of events held out from which on it is worth training again with them."""
_FIRST_SHARE = 0.6
"""Of the time, for the training that finds when to stop, if another follows."""
_CLIP_NORM = 5.0
_ITEMS_AT_ONCE = 200_000
"""Items of histories looked up at once: 50 MB at 64 dimensions."""


def train(dataset: Dataset, config: Config, *, seed: int, progress: bool) -> TrainedModel:
    """See `models.dssm.dssm.train`, which has checked the settings."""
    with torch_threads_for(len(dataset)):
        return _trained(dataset, config, seed, progress)


def _trained(dataset: Dataset, config: Config, seed: int, progress: bool) -> TrainedModel:
    inputs = _inputs(dataset, config)
    # More time may be given to a training that ran out of it; all else makes it another one.
    identity = (replace(config, max_seconds=1.0), seed, dataset.fingerprint, len(dataset))
    parted = None if config.epochs else hold_out(inputs.histories, inputs.n_items, seed=seed)
    run = _Run(inputs, config, seed, progress, identity, dataset)
    if parted is None:
        return run.handed_over(*run.fit(inputs.histories, config.epochs or config.max_epochs))
    kept, exam = parted
    again = 1.0 - len(kept.items) / len(inputs.histories.items) > REFIT_FROM
    found, course = run.fit(kept, config.max_epochs, exam, seconds=_FIRST_SHARE if again else 1.0)
    if not again:
        return run.handed_over(found, course)
    last, _ = run.fit(inputs.histories, max(course.best_epoch, 1), seconds=1.0 - _FIRST_SHARE)
    return run.handed_over(last, course)


def _inputs(dataset: Dataset, config: Config) -> Inputs:
    indptr, items = unique_history(dataset)
    read = config.user_features and config.architecture != "bag"
    users = user_features(dataset.users if read else None, dataset.n_users)
    return Inputs(
        Histories(indptr, items, dataset.times is not None),
        torch.from_numpy(np.asarray(users.values.toarray(), np.float32)),
        users.names,
        item_features(dataset.items if config.item_features else None, dataset.n_items, config.text_buckets),
    )


class _Run:
    """One training: what it reads and how; puts fresh towers together for each fit."""

    def __init__(
        self,
        inputs: Inputs,
        config: Config,
        seed: int,
        progress: bool,
        identity: tuple[Any, ...],
        dataset: Dataset,
    ) -> None:
        self._inputs, self._config, self._seed = inputs, config, seed
        self._progress, self._identity, self._dataset = progress, identity, dataset

    def fit(
        self, histories: Histories, epochs: int, exam: Exam | None = None, *, seconds: float = 1.0
    ) -> tuple[Assembly, Course]:
        """Train on histories for so many epochs, or until the exam is no longer passed better."""
        config = self._config
        assembly = put_together(self._inputs, histories, config, self._seed)
        optimizer = torch.optim.Adam(
            assembly.towers.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

        def validate() -> float:
            assert exam is not None  # asked only where there is one
            return float(ndcg(self._factors(assembly, histories, exam.user_rows), exam).mean())

        course = fit(
            assembly.towers,
            optimizer,
            batches=assembly.batches,
            loss=assembly.loss,
            validate=None if exam is None else validate,
            schedule=Schedule(
                epochs,
                config.patience,
                config.max_seconds * seconds,
                _CLIP_NORM,
                Plateau() if config.plateau else None,
            ),
            seed=self._seed,
            checkpoint=checkpoint_of("dssm", *self._identity, epochs, exam is not None),
            label="two towers",
            progress=self._progress,
        )
        return assembly, course

    def handed_over(self, assembly: Assembly, course: Course) -> TrainedModel:
        """Vectors of everybody and everything, and the user tower, where it can be served."""
        histories, config = self._inputs.histories, self._config
        factors = self._factors(assembly, histories, np.flatnonzero(histories.lengths()))
        n_features = len(self._inputs.profile_names)
        parameters: dict[str, Any] = {}
        arrays = dict(factors.arrays)
        tower = None
        newcomers = Newcomers("popular")
        if not config.user_ids:
            parameters["tower"] = {"history_length": config.history_length}
            if n_features:
                newcomers = self._newcomers(assembly)
                parameters["tower"]["features"] = list(self._inputs.profile_names)
                parameters["tower"]["without_history"] = newcomers.answered_by
                arrays["user_features"] = self._inputs.profiles.numpy()
            tower = exported(
                served_tower(assembly), history_length=config.history_length, n_features=n_features or None
            )
        return replace(
            factors,
            arrays=arrays,
            parameters=parameters,
            training={
                "algorithm": "dssm", "seed": self._seed, **asdict(config), "epochs_run": course.best_epoch,
                "stopped": course.stopped, "losses": [round(loss, 6) for loss in course.losses],
                "held_out_ndcg": [round(score, 6) for score in course.scores],
                "newcomers": asdict(newcomers),
            },
            tower=tower,
        )  # fmt: skip

    def _newcomers(self, assembly: Assembly) -> Newcomers:
        """Try users whose history is hidden."""
        histories = self._inputs.histories
        users = sample(histories.lengths(), seed=self._seed)
        hidden = Histories(np.zeros_like(histories.indptr), np.zeros(1, np.int32), ordered=histories.ordered)
        return compare(self._factors(assembly, hidden, users), self._dataset)

    @torch.no_grad()
    def _factors(
        self, assembly: Assembly, histories: Histories, users: npt.NDArray[np.int64]
    ) -> TrainedModel:
        """Vectors of all items that have one, and of these users."""
        assembly.towers.eval()
        tower = cast("ForUsers", assembly.towers.users)
        parts = max(1, -(-len(users) * self._config.history_length // _ITEMS_AT_ONCE))
        vectors = [
            tower.of_many(
                torch.from_numpy(histories.latest(part, self._config.history_length)),
                self._inputs.profiles[part],
                torch.from_numpy(part),
            ).numpy()
            for part in np.array_split(users, parts)
        ]
        rows = torch.from_numpy(assembly.item_rows.astype(np.int64))
        return TrainedModel(
            kind="factors",
            space=self._config.space,
            arrays={
                "item_rows": assembly.item_rows,
                "item_vectors": assembly.towers.items(rows).numpy(),
                "user_rows": users.astype(np.int32),
                "user_vectors": np.concatenate(vectors),
            },
        )


class _WithoutFeatures(nn.Module):
    """A tower that knows users by their history alone."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.tower(history, torch.zeros(1, 0))
        return found


def served_tower(assembly: Assembly) -> nn.Module:
    """Give the user tower as it is served: a history's items are positions among those with a vector, plus one."""
    tower = cast("ForUsers", assembly.towers.users)
    served = tower.served(torch.from_numpy(assembly.item_rows.astype(np.int64)))
    return served if tower.features is not None else _WithoutFeatures(served)
