"""Train the two towers and hand them over: vectors of items and users, and the user tower as ONNX."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.build.scoring import Exam, ndcg
from models.data.dataset import Dataset
from models.dssm.config import Config
from models.dssm.holdout import hold_out
from models.dssm.inputs import Features, item_features, user_features
from models.dssm.network import ItemTower, Shape, UserTower
from models.dssm.softmax import Softmax
from models.dssm.start import spectral_start
from models.dssm.windows import Histories, Windows
from models.history import unique_history
from models.towers.checkpoints import Checkpoint, checkpoint_of
from models.towers.export import exported
from models.towers.loop import Course, Schedule, fit, seeded
from models.trained import TrainedModel

REFIT_FROM = 0.02
"""Share of events held out from which on it is worth training again with them."""
_FIRST_SHARE = 0.6
"""Of the time, for the training that finds when to stop, if another follows."""
_CLIP_NORM = 5.0
_USERS_AT_ONCE = 4_096


class Towers(nn.Module):
    """Both towers, so that they are trained and kept as one."""

    def __init__(self, users: UserTower, items: ItemTower) -> None:
        super().__init__()
        self.users, self.items = users, items


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the towers read. profiles: float32 (n_users, n_features). described: bool (n_items,), has features."""

    histories: Histories
    profiles: torch.Tensor
    profile_names: tuple[str, ...]
    items: Features

    @property
    def n_users(self) -> int:
        """Users known by id."""
        return len(self.profiles)

    @property
    def n_items(self) -> int:
        """Items known by id."""
        return int(self.items.values.shape[0])


def train(dataset: Dataset, config: Config, *, seed: int, progress: bool) -> TrainedModel:
    """See `models.dssm.dssm.train`, which has checked the settings."""
    inputs = _inputs(dataset, config)
    identity = (config, seed, dataset.fingerprint, len(dataset))
    parted = None if config.epochs else hold_out(inputs.histories, inputs.n_items, seed=seed)
    run = _Run(inputs, config, seed, progress, identity)
    if parted is None:
        return run.handed_over(*run.fit(inputs.histories, config.epochs or config.max_epochs))
    kept, exam = parted
    again = 1.0 - len(kept.items) / len(inputs.histories.items) > REFIT_FROM
    towers, course = run.fit(kept, config.max_epochs, exam, seconds=_FIRST_SHARE if again else 1.0)
    if not again:
        return run.handed_over(towers, course)
    last, _ = run.fit(inputs.histories, max(course.best_epoch, 1), seconds=1.0 - _FIRST_SHARE)
    return run.handed_over(last, course)


def _inputs(dataset: Dataset, config: Config) -> Inputs:
    indptr, items = unique_history(dataset)
    users = user_features(dataset.users if config.user_features else None, dataset.n_users)
    return Inputs(
        Histories(indptr, items, dataset.times is not None),
        torch.from_numpy(np.asarray(users.values.toarray(), np.float32)),
        users.names,
        item_features(dataset.items if config.item_features else None, dataset.n_items, config.text_buckets),
    )


class _Run:
    """One training: what it reads and how; builds fresh towers for each fit."""

    def __init__(
        self, inputs: Inputs, config: Config, seed: int, progress: bool, identity: tuple[Any, ...]
    ) -> None:
        self._inputs, self._config, self._seed = inputs, config, seed
        self._progress, self._identity = progress, identity

    def fit(
        self, histories: Histories, epochs: int, exam: Exam | None = None, *, seconds: float = 1.0
    ) -> tuple[Towers, Course]:
        config = self._config
        frequencies = np.bincount(histories.items, minlength=self._inputs.n_items).astype(np.float64)
        towers = self._towers(histories, frequencies)
        loss = Softmax(towers.users, towers.items, self._inputs.profiles, frequencies, config)
        optimizer = torch.optim.Adam(
            towers.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

        def batches(generator: np.random.Generator) -> Windows:
            loss.begin(generator)
            return Windows(histories, config, generator)

        def validate() -> float:
            assert exam is not None  # asked only where there is one
            return float(ndcg(self._factors(towers, histories, exam.user_rows), exam).mean())

        course = fit(
            towers,
            optimizer,
            batches=batches,
            loss=loss,
            validate=None if exam is None else validate,
            schedule=Schedule(epochs, config.patience, config.max_seconds * seconds, _CLIP_NORM),
            seed=self._seed,
            checkpoint=self._checkpoint(epochs, validated=exam is not None),
            label="two towers",
            progress=self._progress,
        )
        return towers, course

    def handed_over(self, towers: Towers, course: Course) -> TrainedModel:
        histories, config = self._inputs.histories, self._config
        users = np.flatnonzero(histories.lengths())
        factors = self._factors(towers, histories, users)
        n_features = len(self._inputs.profile_names)
        parameters: dict[str, Any] = {}
        arrays = dict(factors.arrays)
        tower = None
        if not config.user_ids:
            parameters["tower"] = {"history_length": config.history_length}
            if n_features:
                parameters["tower"]["features"] = list(self._inputs.profile_names)
                arrays["user_features"] = self._inputs.profiles.numpy()
            tower = exported(
                served_tower(towers.users, arrays["item_rows"]),
                history_length=config.history_length,
                n_features=n_features or None,
            )
        return replace(
            factors,
            arrays=arrays,
            parameters=parameters,
            training={
                "algorithm": "dssm", "seed": self._seed, **asdict(config), "epochs_run": course.best_epoch,
                "stopped": course.stopped, "losses": [round(loss, 6) for loss in course.losses],
                "held_out_ndcg": [round(score, 6) for score in course.scores],
            },
            tower=tower,
        )  # fmt: skip

    def _towers(self, histories: Histories, frequencies: npt.NDArray[np.float64]) -> Towers:
        inputs, config = self._inputs, self._config
        shape = Shape(inputs.n_items, inputs.n_users, len(inputs.profile_names))
        trained = torch.from_numpy(frequencies > 0)
        with seeded(self._seed):
            towers = Towers(
                UserTower(shape, trained, config), ItemTower(shape, inputs.items.values, trained, config)
            )
        if config.spectral:
            before, after = spectral_start(histories, inputs.n_items, config.dim, seed=self._seed)
            towers.users.start_from(torch.from_numpy(before))
            towers.items.start_from(torch.from_numpy(after))
        return towers

    def _checkpoint(self, epochs: int, *, validated: bool) -> Checkpoint | None:
        return checkpoint_of("dssm", *self._identity, epochs, validated)

    @torch.no_grad()
    def _factors(self, towers: Towers, histories: Histories, users: npt.NDArray[np.int64]) -> TrainedModel:
        """Vectors of all items that have any, and of these users."""
        towers.eval()
        vectors = [
            towers.users.of_many(
                torch.from_numpy(histories.latest(part, self._config.history_length)),
                self._inputs.profiles[part],
                torch.from_numpy(part),
            ).numpy()
            for part in np.array_split(users, max(1, -(-len(users) // _USERS_AT_ONCE)))
        ]
        described = np.diff(self._inputs.items.values.indptr) > 0
        rows = np.flatnonzero(towers.items.trained.numpy() | described)
        return TrainedModel(
            kind="factors",
            space=self._config.space,
            arrays={
                "item_rows": rows.astype(np.int32),
                "item_vectors": towers.items(torch.from_numpy(rows)).numpy(),
                "user_rows": users.astype(np.int32),
                "user_vectors": np.concatenate(vectors),
            },
        )


class _WithoutFeatures(nn.Module):
    """A tower that knows users by their history alone."""

    def __init__(self, tower: UserTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.tower(history, torch.zeros(1, 0))
        return found


def served_tower(tower: UserTower, item_rows: npt.NDArray[np.int32]) -> nn.Module:
    """The tower as it is served: a history's items are positions in `item_rows` plus one."""
    served = copy.deepcopy(tower)
    rows = torch.from_numpy(np.concatenate([[0], item_rows.astype(np.int64) + 1]))
    served.items = nn.Embedding(
        len(rows), tower.items.embedding_dim, _weight=tower.items.weight.detach()[rows]
    )
    return served if served.features is not None else _WithoutFeatures(served)
